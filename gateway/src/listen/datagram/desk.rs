//! One source: what it said before, and its session, which lasts while it is heard.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use kerbside_codecs::telemetry::Speaker;
use kerbside_codecs::telemetry::datagram::Link;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

use super::Shared;
use crate::config::Source;
use crate::device::{Downlinks, Uplink};
use crate::ids::SessionId;
use crate::registry;

/// Takes what comes for this source until its port is gone.
pub(super) async fn run(source: Source, mut inbox: mpsc::Receiver<Uplink>, shared: Shared) {
    let mut revocations = shared.registry.revocations();
    let mut desk = Desk {
        link: link(&source),
        registered: None,
        session: None,
        heard: Instant::now(),
        source,
        shared,
    };
    loop {
        let silent = desk.heard + desk.source.silence;
        tokio::select! {
            up = inbox.recv() => match up {
                Some(up) => desk.hear(up).await,
                None => break,
            },
            () = sleep_until(silent), if desk.session.is_some() => desk.leave().await,
            changed = revocations.changed() => {
                if changed.is_err() {
                    break;
                }
                if desk.device().is_none() {
                    desk.leave().await;
                }
            }
        }
    }
    desk.leave().await;
}

fn link(source: &Source) -> Link {
    Link::new(source.sysid, source.key.clone())
}

struct Desk {
    source: Source,
    shared: Shared,
    link: Link,
    /// The device as the registry knew it at that generation.
    registered: Option<(u64, registry::Device)>,
    session: Option<SessionId>,
    /// When it last said something that is believed.
    heard: Instant,
}

impl Desk {
    fn device(&mut self) -> Option<registry::Device> {
        let generation = self.shared.registry.generation();
        if self
            .registered
            .as_ref()
            .is_none_or(|(g, _)| *g != generation)
        {
            let device = self.shared.registry.device(self.source.device.as_str());
            self.registered = device.map(|d| (generation, d));
        }
        self.registered.as_ref().map(|(_, d)| d.clone())
    }

    async fn hear(&mut self, mut up: Uplink) {
        let Some(device) = self.device() else {
            return up.shed("not_registered");
        };
        let speaker = Speaker {
            device: &device.id,
            datum: device.datum,
            aircraft: None,
        };
        let codecs = Arc::clone(&self.shared.codecs);
        let link = &mut self.link;
        let decoded = catch_unwind(AssertUnwindSafe(|| {
            link.decode(&codecs, speaker, &up.payload, up.arrived.unix_ms)
        }));
        let Ok(decoded) = decoded else {
            tracing::error!(device = %self.source.device, topic = %up.topic, bytes = up.payload.len(), "a datagram could not be handled; it is set aside, and what was known of its source too");
            self.link = self::link(&self.source);
            return up.shed("poison");
        };
        let is_believed = !decoded.reports.is_empty() || decoded.faults.is_empty();
        if is_believed {
            self.heard = Instant::now();
        }
        if is_believed && !self.arrive(&device).await {
            return up.shed("busy");
        }
        if decoded.reports.is_empty() && decoded.faults.is_empty() {
            return up.conflated();
        }
        // What nobody believes makes no device online, yet its faults are told.
        let session = match self.session {
            Some(session) => session,
            None => {
                self.shared.fleet.introduce(&device);
                SessionId::next()
            }
        };
        up.decoded = Some(Arc::new(decoded));
        // Accounted for by the fleet: a datagram is not asked for again.
        if let Err(reason) = self
            .shared
            .fleet
            .message(&self.source.device, session, up)
            .await
        {
            tracing::debug!(device = %self.source.device, %reason, "a datagram found no owner");
        }
    }

    /// False: the device has too many sessions.
    async fn arrive(&mut self, device: &registry::Device) -> bool {
        if self.session.is_some() {
            return true;
        }
        let id = SessionId::next();
        let opened = self
            .shared
            .fleet
            .open(device.clone(), id, None, "udp", Downlinks::deaf())
            .await;
        self.session = opened.is_ok().then_some(id);
        self.session.is_some()
    }

    async fn leave(&mut self) {
        if let Some(session) = self.session.take() {
            self.shared.fleet.close(&self.source.device, session).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use bytes::Bytes;
    use kerbside_codecs::telemetry::{Codecs, Fault};

    use super::*;
    use crate::clock::Now;
    use crate::config::SigningKey;
    use crate::device::testing::{self, Desk as Picture};
    use crate::ids::DeviceId;
    use crate::picture::Fact;
    use crate::registry::{DeviceKind, Registry};

    const POSITION: &[u8] = include_bytes!("../../../../codecs/fuzz/corpus/mavlink/position");

    /// One second of silence ends its session.
    fn street(
        key: Option<SigningKey>,
    ) -> (mpsc::Sender<Uplink>, Picture, Registry, tempfile::TempDir) {
        let dir = tempfile::tempdir().unwrap();
        let registry = Registry::open(dir.path()).unwrap();
        registry
            .add_device("uav-1", DeviceKind::Drone, None)
            .unwrap();
        let (fleet, picture) = testing::fleet(registry.clone());
        let source = Source {
            device: DeviceId::parse("uav-1").unwrap(),
            address: None,
            from_port: None,
            listen: None,
            sysid: 1,
            key,
            silence: Duration::from_secs(1),
        };
        let shared = Shared {
            registry: registry.clone(),
            fleet,
            codecs: Arc::new(Codecs::default()),
        };
        let (tx, rx) = mpsc::channel(8);
        drop(actix_rt::spawn(run(source, rx, shared)));
        (tx, picture, registry, dir)
    }

    fn up(payload: &'static [u8]) -> Uplink {
        Uplink::new(
            "datagram/mavlink".into(),
            Bytes::from_static(payload),
            Now::read(),
        )
    }

    async fn presence(picture: &mut Picture) -> bool {
        loop {
            let (fact, answer) = picture.next().await;
            answer.send(true).unwrap();
            if let Fact::Session { online, .. } = fact {
                return online;
            }
        }
    }

    #[actix::test]
    async fn a_source_is_online_while_it_is_heard() {
        let (tx, mut picture, registry, _dir) = street(None);
        tx.send(up(POSITION)).await.unwrap();
        assert!(presence(&mut picture).await);
        let (report, answer) = picture.report().await;
        answer.send(true).unwrap();
        assert_eq!(report.fix.map(|f| f.lat), Some(37.69));
        assert!(!presence(&mut picture).await, "nothing came for a second");
        tx.send(up(POSITION)).await.unwrap();
        assert!(presence(&mut picture).await);
        registry.revoke_device("uav-1").unwrap();
        assert!(!presence(&mut picture).await, "it was revoked");
    }

    #[actix::test]
    async fn what_is_not_believed_tells_its_faults_and_nothing_else() {
        let (tx, mut picture, _registry, _dir) = street(Some(SigningKey([1; 32])));
        tx.send(up(POSITION)).await.unwrap();
        let (fact, answer) = picture.next().await;
        answer.send(true).unwrap();
        let Fact::Faults { faults, .. } = fact else {
            panic!("{fact:?}");
        };
        assert_eq!(faults, [Fault::Unsigned]);
    }
}
