//! Snapshots: one decode for all who ask for the same picture at the same time, few decodes at once, nobody waits long.

use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use bytes::Bytes;
use kerbside_codecs::media::Captured;
use parking_lot::Mutex;
use prometheus::{HistogramVec, IntCounterVec};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::shelf::{Key, Look, Outcome, Shelf};
use super::still::Still;
use super::{Fault, decode};
use crate::metrics;

/// Decoders at once: a picture costs tens of milliseconds of a core, and the cores have live work to do.
const DECODERS_MAX: usize = 2;
/// Waiting for one of them.
const PLACE_WAIT_MAX: Duration = Duration::from_secs(3);
/// Beyond the decoder's own limits, for a decoder that hangs. Its thread stays away until it comes back.
const JOB_MAX: Duration = Duration::from_secs(15);

static TAKEN: LazyLock<IntCounterVec> = LazyLock::new(|| {
    metrics::counter(
        "kerbside_snapshots_total",
        "Snapshots asked for, by what became of them",
        &["result"],
    )
});
static DECODE_SECONDS: LazyLock<HistogramVec> = LazyLock::new(|| {
    metrics::histogram_s(
        "kerbside_snapshot_decode_seconds",
        "From key frame to JPEG",
        &[],
    )
});

/// A still picture.
#[derive(Debug)]
pub struct Snapshot {
    pub jpeg: Bytes,
    pub width: u32,
    pub height: u32,
    pub captured: Captured,
}

type Decode = dyn Fn(&Still, Option<u16>) -> Result<Snapshot, Fault> + Send + Sync;

/// The desk where snapshots are asked for. Cheap to clone.
#[derive(Clone)]
pub struct Snapshots(Arc<Desk>);

struct Desk {
    shelf: Mutex<Shelf>,
    places: Arc<Semaphore>,
    decode: Box<Decode>,
    job_max: Duration,
}

impl Default for Snapshots {
    fn default() -> Self {
        Self::with(Box::new(decode::jpeg), JOB_MAX)
    }
}

impl Snapshots {
    fn with(decode: Box<Decode>, job_max: Duration) -> Self {
        Self(Arc::new(Desk {
            shelf: Mutex::default(),
            places: Arc::new(Semaphore::new(DECODERS_MAX)),
            decode,
            job_max,
        }))
    }

    /// The picture of `key`, at most a second old. `still` fetches the newest key frame, and must end by itself; it is
    /// used only if nobody else is making this picture. To be called on a tokio runtime. Cancel-safe: a picture that
    /// was begun is finished for the others.
    ///
    /// # Errors
    /// [`Fault`]; the same for all who asked together, for a second.
    pub async fn take<F>(&self, key: Key, still: F) -> Outcome
    where
        F: Future<Output = Result<Still, Fault>> + Send + 'static,
    {
        let look = self.0.shelf.lock().look(&key, Instant::now());
        let mut coming = match look {
            Look::Made(outcome) => return counted("cached", outcome),
            Look::Full => return counted("", Err(Fault::Busy)),
            Look::Coming(coming) => coming,
            Look::Make(send, coming) => {
                let desk = self.0.clone();
                // Not kept: the shelf bounds how many there are, and each ends by its own time limits.
                drop(tokio::spawn(async move {
                    let outcome = desk.make(still, key.width).await;
                    desk.shelf.lock().put(key, outcome.clone(), Instant::now());
                    // Nobody waits any more: then it is on the shelf only.
                    send.send_replace(Some(outcome));
                }));
                coming
            }
        };
        let outcome = match coming.wait_for(Option::is_some).await {
            Ok(made) => made.clone().unwrap_or(Err(Fault::Busy)),
            Err(_) => Err(Fault::Damaged("the decoder died of it".to_owned())),
        };
        counted("made", outcome)
    }
}

fn counted(result: &'static str, outcome: Outcome) -> Outcome {
    let result = outcome.as_ref().map_or_else(Fault::name, |_| result);
    TAKEN.with_label_values(&[result]).inc();
    outcome
}

impl Desk {
    async fn make<F>(self: &Arc<Self>, still: F, width: Option<u16>) -> Outcome
    where
        F: Future<Output = Result<Still, Fault>>,
    {
        let still = still.await?;
        let place = timeout(PLACE_WAIT_MAX, self.places.clone().acquire_owned());
        let Ok(Ok(place)) = place.await else {
            return Err(Fault::Busy);
        };
        let desk = self.clone();
        let job = tokio::task::spawn_blocking(move || {
            // Held until the decoder comes back, however long that takes.
            let _place = place;
            let took = DECODE_SECONDS.with_label_values::<&str>(&[]).start_timer();
            let made = (desk.decode)(&still, width);
            took.observe_duration();
            made
        });
        match timeout(self.job_max, job).await {
            Ok(Ok(made)) => made.map(Arc::new),
            Ok(Err(_)) => Err(Fault::Damaged("the decoder died of it".to_owned())),
            Err(_) => {
                tracing::error!("a decoder does not come back; its place stays taken");
                Err(Fault::Slow)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::mpsc;

    use futures_util::future::join_all;

    use super::super::still::tests::{IDR, PPS, SPS, WHEN, still};
    use super::*;
    use crate::ids::StreamId;

    fn key(camera: &str) -> Key {
        Key {
            stream: StreamId::new("bc-01", camera).unwrap(),
            width: None,
        }
    }

    fn desk_of(
        decode: impl Fn(&Still) -> Result<Snapshot, Fault> + Send + Sync + 'static,
    ) -> Snapshots {
        Snapshots::with(Box::new(move |still, _| decode(still)), JOB_MAX)
    }

    async fn frame() -> Result<Still, Fault> {
        still(&[SPS, PPS, IDR])
    }

    fn picture() -> Result<Snapshot, Fault> {
        Ok(Snapshot {
            jpeg: Bytes::from_static(b"jpeg"),
            width: 64,
            height: 48,
            captured: WHEN,
        })
    }

    #[tokio::test]
    async fn a_hundred_at_once_are_one_decode() {
        let decodes = Arc::new(AtomicUsize::new(0));
        let counter = decodes.clone();
        let desk = desk_of(move |_| {
            counter.fetch_add(1, Ordering::SeqCst);
            picture()
        });
        let all = join_all((0..100).map(|_| desk.take(key("main"), frame()))).await;
        assert!(all.iter().all(Result::is_ok));
        assert_eq!(decodes.load(Ordering::SeqCst), 1);
        // And one that comes a moment later.
        desk.take(key("main"), frame()).await.unwrap();
        assert_eq!(decodes.load(Ordering::SeqCst), 1);
        desk.take(key("side"), frame()).await.unwrap();
        assert_eq!(decodes.load(Ordering::SeqCst), 2);
    }

    #[tokio::test]
    async fn two_decode_at_once_and_no_more() {
        let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let (counter, top) = (now.clone(), most.clone());
        let (go, gate) = mpsc::channel::<()>();
        let gate = Mutex::new(gate);
        let (begun, mut begins) = tokio::sync::mpsc::unbounded_channel();
        let desk = desk_of(move |_| {
            let n = counter.fetch_add(1, Ordering::SeqCst) + 1;
            top.fetch_max(n, Ordering::SeqCst);
            begun.send(()).unwrap();
            gate.lock().recv().unwrap();
            counter.fetch_sub(1, Ordering::SeqCst);
            picture()
        });
        let takes: Vec<_> = (0..8)
            .map(|n| {
                let desk = desk.clone();
                tokio::spawn(async move { desk.take(key(&format!("c{n}")), frame()).await })
            })
            .collect();
        for _ in 0..2 {
            begins.recv().await.unwrap();
        }
        assert_eq!(desk.0.places.available_permits(), 0);
        for _ in 0..8 {
            go.send(()).unwrap();
        }
        for taken in takes {
            taken.await.unwrap().unwrap();
        }
        assert_eq!(most.load(Ordering::SeqCst), 2);
    }

    #[tokio::test]
    async fn who_leaves_takes_nothing_from_the_others() {
        let desk = desk_of(|_| picture());
        let (go, gate) = tokio::sync::oneshot::channel::<()>();
        let slow = async move {
            gate.await.unwrap();
            frame().await
        };
        let mut first = Box::pin(desk.take(key("main"), slow));
        assert!(futures_util::poll!(first.as_mut()).is_pending());
        let mut second = Box::pin(desk.take(key("main"), frame()));
        assert!(futures_util::poll!(second.as_mut()).is_pending());
        drop(first);
        go.send(()).unwrap();
        assert_eq!(second.await.unwrap().jpeg, "jpeg");
    }

    #[tokio::test]
    async fn a_decoder_that_dies_is_a_reason_and_not_the_end() {
        let desk = desk_of(|_| panic!("as decoders do"));
        for camera in ["a", "b", "c", "d"] {
            let fault = desk.take(key(camera), frame()).await.unwrap_err();
            assert!(matches!(fault, Fault::Damaged(_)), "{fault}");
        }
    }

    #[tokio::test]
    async fn a_decoder_that_hangs_holds_up_nobody_else() {
        let (go, gate) = mpsc::channel::<()>();
        let gate = Mutex::new(gate);
        let first = AtomicUsize::new(0);
        let decode = move |_: &Still, _| {
            if first.fetch_add(1, Ordering::SeqCst) == 0 {
                gate.lock().recv().unwrap();
            }
            picture()
        };
        let desk = Snapshots::with(Box::new(decode), Duration::from_secs(1));
        let hung = desk.take(key("a"), frame()).await.unwrap_err();
        assert_eq!(hung, Fault::Slow);
        assert_eq!(desk.0.places.available_permits(), 1, "its place is taken");
        desk.take(key("b"), frame()).await.unwrap();
        go.send(()).unwrap();
        let both = desk.0.places.acquire_many(2).await;
        assert!(both.is_ok(), "and free when it comes back");
    }
}
