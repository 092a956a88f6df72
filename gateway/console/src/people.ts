// Devices of one person are one person: which device stands for them, and which are listed below it. Pure.

import type { Device } from './contract';

/** Whether a device has a marker and is counted. */
export function isShown(device: Pick<Device, 'primary'>): boolean {
  return device.primary !== false;
}

/** The other devices of the same person, by id. */
export function companions<D extends Device>(device: Device, all: Iterable<D>): D[] {
  if (device.person == null) return [];
  const others = [...all].filter((d) => d.person === device.person && d.id !== device.id);
  return others.sort((a, b) => (a.id < b.id ? -1 : 1));
}

/** In the order of `sorted`, those that stand for nobody directly below the one that stands for their person. */
export function grouped<D extends Device>(sorted: readonly D[]): D[] {
  const heads = new Set(sorted.filter((d) => isShown(d) && d.person != null).map((d) => d.person));
  const below = new Map<string, D[]>();
  for (const device of sorted) {
    if (isShown(device) || device.person == null || !heads.has(device.person)) continue;
    const group = below.get(device.person);
    if (group === undefined) below.set(device.person, [device]);
    else group.push(device);
  }
  const list: D[] = [];
  for (const device of sorted) {
    const isBelow = !isShown(device) && device.person != null && heads.has(device.person);
    if (isBelow) continue;
    list.push(device);
    if (device.person == null || !isShown(device)) continue;
    list.push(...(below.get(device.person) ?? []));
    below.delete(device.person);
  }
  return list;
}

/** Ids of the devices whose marker calls for help: their own call, or that of another device of their person. */
export function inDistress(all: Iterable<Device>): Set<string> {
  const devices = [...all];
  const persons = new Set(devices.filter((d) => d.sos && d.person != null).map((d) => d.person));
  const calling = devices.filter((d) => d.sos || (d.person != null && persons.has(d.person)));
  return new Set(calling.filter(isShown).map((d) => d.id));
}
