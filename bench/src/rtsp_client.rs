//! Just enough RTSP client to publish and to play over TCP, for load.

use anyhow::{Context, bail};
use base64::Engine;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

pub struct RtspClient {
    pub stream: TcpStream,
    url: String,
    auth: String,
    cseq: u32,
    session: Option<String>,
    /// Bytes behind the last response.
    pub rest: Vec<u8>,
}

impl RtspClient {
    pub async fn connect(
        addr: &str,
        path: &str,
        user: &str,
        password: &str,
    ) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(addr).await?;
        stream.set_nodelay(true)?;
        let basic = base64::engine::general_purpose::STANDARD.encode(format!("{user}:{password}"));
        Ok(Self {
            stream,
            url: format!("rtsp://{addr}/{path}"),
            auth: format!("Authorization: Basic {basic}\r\n"),
            cseq: 0,
            session: None,
            rest: Vec::new(),
        })
    }

    async fn request(
        &mut self,
        method: &str,
        suffix: &str,
        headers: &str,
        body: &str,
    ) -> anyhow::Result<String> {
        self.cseq += 1;
        let session = self
            .session
            .as_ref()
            .map(|s| format!("Session: {s}\r\n"))
            .unwrap_or_default();
        let length = if body.is_empty() {
            String::new()
        } else {
            format!(
                "Content-Type: application/sdp\r\nContent-Length: {}\r\n",
                body.len()
            )
        };
        let text = format!(
            "{method} {}{suffix} RTSP/1.0\r\nCSeq: {}\r\n{}{session}{headers}{length}\r\n{body}",
            self.url, self.cseq, self.auth
        );
        self.stream.write_all(text.as_bytes()).await?;
        let head = loop {
            if let Some(end) = self.rest.windows(4).position(|w| w == b"\r\n\r\n") {
                let head = String::from_utf8_lossy(&self.rest[..end]).into_owned();
                self.rest.drain(..end + 4);
                break head;
            }
            if self.stream.read_buf(&mut self.rest).await? == 0 {
                bail!("{method}: the server closed the connection");
            }
        };
        if !head.starts_with("RTSP/1.0 200") {
            bail!("{method}: {}", head.lines().next().unwrap_or_default());
        }
        let header = |name: &str| {
            head.lines().find_map(|l| {
                let (k, v) = l.split_once(':')?;
                k.eq_ignore_ascii_case(name).then(|| v.trim().to_owned())
            })
        };
        if let Some(s) = header("Session") {
            self.session = Some(s.split(';').next().unwrap_or_default().to_owned());
        }
        let length: usize = header("Content-Length")
            .map_or(Ok(0), |l| l.parse())
            .context("Content-Length")?;
        while self.rest.len() < length {
            if self.stream.read_buf(&mut self.rest).await? == 0 {
                bail!("{method}: the server closed the connection");
            }
        }
        Ok(String::from_utf8_lossy(&self.rest.drain(..length).collect::<Vec<_>>()).into_owned())
    }

    pub async fn announce(&mut self, sps: &[u8], pps: &[u8]) -> anyhow::Result<()> {
        let b64 = |b: &[u8]| base64::engine::general_purpose::STANDARD.encode(b);
        let sdp = format!(
            "v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=bench\r\nt=0 0\r\nm=video 0 RTP/AVP 96\r\na=rtpmap:96 H264/90000\r\n\
             a=fmtp:96 packetization-mode=1;sprop-parameter-sets={},{}\r\na=control:trackID=0\r\n",
            b64(sps),
            b64(pps)
        );
        self.request("ANNOUNCE", "", "", &sdp).await?;
        self.request(
            "SETUP",
            "/trackID=0",
            "Transport: RTP/AVP/TCP;unicast;interleaved=0-1;mode=record\r\n",
            "",
        )
        .await?;
        self.request("RECORD", "", "", "").await?;
        Ok(())
    }

    pub async fn play(&mut self) -> anyhow::Result<()> {
        let sdp = self
            .request("DESCRIBE", "", "Accept: application/sdp\r\n", "")
            .await?;
        let control = sdp
            .lines()
            .skip_while(|l| !l.starts_with("m=video"))
            .find_map(|l| l.strip_prefix("a=control:"))
            .context("no video control in the SDP")?
            .to_owned();
        let suffix = match control.strip_prefix(&self.url) {
            Some(s) => s.to_owned(),
            None if control.contains("://") => bail!("control {control} is of another stream"),
            None => format!("/{control}"),
        };
        self.request(
            "SETUP",
            &suffix,
            "Transport: RTP/AVP/TCP;unicast;interleaved=0-1\r\n",
            "",
        )
        .await?;
        self.request("PLAY", "", "Range: npt=0.000-\r\n", "")
            .await?;
        Ok(())
    }
}
