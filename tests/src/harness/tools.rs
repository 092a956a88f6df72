//! Programs that we did not write: ffmpeg, GStreamer, mosquitto's clients, Chromium.

use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use tokio::process::Command;

use crate::process::{Process, command};

/// What a finished program said.
#[derive(Debug)]
pub struct Said {
    pub status: ExitStatus,
    pub out: String,
    pub err: String,
}

impl Said {
    /// Both outputs, for messages and searches.
    pub fn all(&self) -> String {
        format!("{}\n{}", self.out, self.err)
    }

    /// Panics unless the program succeeded.
    #[track_caller]
    pub fn succeeded(self) -> Said {
        assert!(self.status.success(), "{}: {}", self.status, self.all());
        self
    }
}

/// True if the program is there. When `KERBSIDE_E2E=required` a missing one is a failure, not a skipped test, unless
/// it is one that not every supported system has.
pub fn have(program: &str) -> bool {
    let found = find(program).is_some();
    if !found {
        let optional = ["chromium", "simple-whip-client"].contains(&program);
        assert!(
            optional || std::env::var("KERBSIDE_E2E").is_ok_and(|value| value != "required"),
            "{program} is missing: run `tests/deps.sh test`, or set KERBSIDE_E2E=optional to skip what needs it"
        );
        eprintln!("skipped: {program} is missing");
    }
    found
}

/// Where a program is; Chromium has several names.
pub fn find(program: &str) -> Option<PathBuf> {
    let names: &[&str] = match program {
        "chromium" => &["chromium", "google-chrome", "chromium-browser"],
        // The package and its program.
        "simple-whip-client" => &["whip-client", "simple-whip-client"],
        _ => &[program],
    };
    if program == "chromium"
        && let Some(path) = std::env::var_os("CHROMIUM")
    {
        return Some(path.into());
    }
    let path = std::env::var_os("PATH")?;
    let dirs: Vec<PathBuf> = std::env::split_paths(&path).collect();
    names
        .iter()
        .flat_map(|name| dirs.iter().map(move |dir| dir.join(name)))
        .find(|path| path.is_file())
}

/// Runs a program to its end; panics if it takes longer than `limit`.
pub async fn run(limit: Duration, program: &str, args: &[&str]) -> Said {
    let mut command = Command::new(program);
    let child = command
        .args(args)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap_or_else(|fault| panic!("{program}: {fault}"));
    let Ok(output) = tokio::time::timeout(limit, child.wait_with_output()).await else {
        panic!("{program} {} takes longer than {limit:?}", args.join(" "));
    };
    let output = output.unwrap_or_else(|fault| panic!("{program}: {fault}"));
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Said {
        status: output.status,
        out: text(&output.stdout),
        err: text(&output.stderr),
    }
}

/// Starts a program that runs on; its output goes to a log in `dir`.
pub fn start(dir: &Path, name: &str, program: &str, args: &[&str]) -> Process {
    let mut command = command(program);
    command.args(args);
    Process::start(name, command, &dir.join(format!("{name}.log")))
        .unwrap_or_else(|fault| panic!("{program}: {fault}"))
}

/// Debian's simple-whip-client publishes to a WHIP address; `more`: its arguments for the media.
pub fn whip_client(dir: &Path, url: &str, password: &str, more: &[&str]) -> Process {
    let program = find("simple-whip-client").expect("asked for with `have`");
    let mut command = command(program);
    command
        .args(["-u", url, "-t", password])
        .args(more)
        .env("LD_LIBRARY_PATH", without_upnp(dir));
    Process::start("whip", command, &dir.join("whip.log"))
        .unwrap_or_else(|fault| panic!("simple-whip-client: {fault}"))
}

/// Debian 12 links whip-client to libsoup 2, and libnice (by way of UPnP) to libsoup 3; both in one process refuse to
/// run. An empty UPnP library in front of the real one keeps libsoup 3 out; UPnP is not used here.
fn without_upnp(dir: &Path) -> PathBuf {
    const NAME: &str = "libgupnp-igd-1.0.so.4";
    let dir = dir.join("without-upnp");
    std::fs::create_dir_all(&dir).expect("a directory for a library");
    let source: String = ["add_port", "get_type", "remove_port_local", "thread_new"]
        .map(|f| format!("void *gupnp_simple_igd_{f}(void) {{ return 0; }}\n"))
        .concat();
    std::fs::write(dir.join("none.c"), source).expect("the library's source");
    let built = std::process::Command::new("cc")
        .args(["-shared", "-fPIC", "none.c", "-o", NAME])
        .arg(format!("-Wl,-soname,{NAME}"))
        .current_dir(&dir)
        .status()
        .expect("a C compiler is installed");
    assert!(built.success());
    dir
}

/// ffmpeg pushes a test picture at 15 frames a second, key frame each second, to an RTSP address.
pub fn ffmpeg_push(dir: &Path, url: &str, transport: &str) -> Process {
    let name = format!("ffmpeg-push-{transport}");
    let args = [
        "-hide_banner",
        "-loglevel",
        "warning",
        "-re",
        "-f",
        "lavfi",
        "-i",
        "testsrc=size=320x180:rate=15",
        "-c:v",
        "libx264",
        "-preset",
        "ultrafast",
        "-tune",
        "zerolatency",
        "-g",
        "15",
        "-pix_fmt",
        "yuv420p",
        "-f",
        "rtsp",
        "-rtsp_transport",
        transport,
        url,
    ];
    start(dir, &name, "ffmpeg", &args)
}

/// GStreamer pushes a test picture to an RTSP address; `transport` is tcp or udp.
pub fn gst_push(
    dir: &Path,
    location: &str,
    user: &str,
    password: &str,
    transport: &str,
) -> Process {
    let name = format!("gst-push-{transport}");
    let sink = [
        format!("location={location}"),
        format!("user-id={user}"),
        format!("user-pw={password}"),
        format!("protocols={transport}"),
    ];
    let mut args = vec![
        "-q",
        "videotestsrc",
        "is-live=true",
        "!",
        "video/x-raw,width=320,height=180,framerate=15/1",
        "!",
        "x264enc",
        "tune=zerolatency",
        "speed-preset=ultrafast",
        "key-int-max=15",
        "!",
        "h264parse",
        "!",
        "rtspclientsink",
    ];
    args.extend(sink.iter().map(String::as_str));
    start(dir, &name, "gst-launch-1.0", &args)
}

/// ffmpeg pulls and decodes `frames` pictures; any complaint of its decoder fails the test.
pub async fn ffmpeg_pull(url: &str, transport: &str, frames: u32) {
    let frames_text = frames.to_string();
    let args = [
        "-hide_banner",
        "-loglevel",
        "error",
        "-rtsp_transport",
        transport,
        "-i",
        url,
        "-an",
        "-frames:v",
        &frames_text,
        "-progress",
        "pipe:1",
        "-f",
        "null",
        "-",
    ];
    let said = run(Duration::from_secs(40), "ffmpeg", &args)
        .await
        .succeeded();
    let counted = said
        .out
        .lines()
        .filter_map(|line| line.strip_prefix("frame=")?.trim().parse::<u32>().ok())
        .next_back();
    assert_eq!(
        counted,
        Some(frames),
        "frames decoded over {transport}: {}",
        said.all()
    );
    assert!(
        said.err.trim().is_empty(),
        "ffmpeg complains over {transport}: {}",
        said.err
    );
}

/// GStreamer pulls and decodes `frames` pictures.
pub async fn gst_pull(url: &str, transport: &str, frames: u32) {
    let (location, protocols) = (format!("location={url}"), format!("protocols={transport}"));
    let buffers = format!("num-buffers={frames}");
    let args = [
        "rtspsrc",
        &location,
        &protocols,
        "latency=100",
        "!",
        "rtph264depay",
        "!",
        "h264parse",
        "!",
        "avdec_h264",
        "!",
        "fakesink",
        "sync=false",
        &buffers,
    ];
    let said = run(Duration::from_secs(40), "gst-launch-1.0", &args).await;
    // Its end of stream is what counts: when rtspsrc 1.22 closes, its own CLOSE at times interrupts its PAUSE, and
    // gst-launch then fails although it has played everything.
    let played = said.out.contains("Got EOS from element \"pipeline0\"");
    let fault = said.err.lines().find(|l| {
        l.starts_with("ERROR") && !l.ends_with("GstRTSPSrc:rtspsrc0: Could not write to resource.")
    });
    assert!(
        played && fault.is_none(),
        "gst over {transport}: {}",
        said.all()
    );
}
