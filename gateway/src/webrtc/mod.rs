//! WebRTC

mod answer;
mod feedback;
mod ice;
mod offer;
mod secure;
