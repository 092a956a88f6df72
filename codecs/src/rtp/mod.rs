//! RTP (RFC 3550) and its payload formats: packets to access units and back.
