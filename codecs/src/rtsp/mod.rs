//! RTSP 1.0 (RFC 2326) without sockets: framing with interleaved data, Digest, SDP of a stream.
