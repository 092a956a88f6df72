//! All devices of the picture, and how many of them are only announced.

use std::collections::HashMap;

use crate::clock::Now;
use crate::ids::DeviceId;
use crate::picture::device::Device;
use crate::picture::grid::Grid;

/// Aircraft and others that are announced by a dock, not registered, at most.
pub const ANNOUNCED_MAX: usize = 2000;

#[derive(Default)]
pub struct Devices {
    map: HashMap<DeviceId, Device>,
    /// How many of them are neither registered nor configured.
    announced: usize,
}

impl Devices {
    pub fn get(&self, id: &DeviceId) -> Option<&Device> {
        self.map.get(id)
    }

    pub fn get_mut(&mut self, id: &DeviceId) -> Option<&mut Device> {
        self.map.get_mut(id)
    }

    pub fn iter(&self) -> impl Iterator<Item = &Device> {
        self.map.values()
    }

    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut Device> {
        self.map.values_mut()
    }

    /// A device that the registry or the configuration knows; the caller says which.
    pub fn known(&mut self, id: &DeviceId, grid: &Grid, now: Now) -> &mut Device {
        let d = self.map.entry(id.clone()).or_insert_with(|| {
            self.announced += 1;
            Device::new(id.clone(), grid, now)
        });
        if d.is_announced() {
            self.announced -= 1;
        }
        d
    }

    /// Whatever the device is; a new one counts as announced. When there are too many, the one that was not heard
    /// for longest goes: its id.
    pub fn announced(
        &mut self,
        id: &DeviceId,
        grid: &Grid,
        now: Now,
    ) -> (&mut Device, Option<DeviceId>) {
        let mut gone = None;
        if !self.map.contains_key(id) {
            if self.announced >= ANNOUNCED_MAX {
                gone = self
                    .iter()
                    .filter(|d| d.is_announced())
                    .min_by_key(|d| d.heard)
                    .map(|d| d.id.clone());
                if let Some(oldest) = &gone {
                    self.remove(oldest);
                }
            }
            self.announced += 1;
        }
        let d = self
            .map
            .entry(id.clone())
            .or_insert_with(|| Device::new(id.clone(), grid, now));
        (d, gone)
    }

    pub fn remove(&mut self, id: &DeviceId) -> Option<Device> {
        let d = self.map.remove(id)?;
        if d.is_announced() {
            self.announced -= 1;
        }
        Some(d)
    }

    #[cfg(test)]
    pub fn counts(&self) -> (usize, usize) {
        (self.map.len(), self.announced)
    }
}
