//! Where a camera's axis points, from a quaternion in north-east-down.

/// Azimuth (degrees clockwise from north, 0..360; None when it looks straight up or down) and elevation (degrees over the
/// horizon) of the axis that `q` (w, x, y, z) turns out of the north. None: not a rotation.
pub fn axis(q: [f32; 4]) -> Option<(Option<f64>, f64)> {
    let [w, x, y, z] = q.map(f64::from);
    let norm = w * w + x * x + y * y + z * z;
    if !(0.9..1.1).contains(&norm) {
        return None;
    }
    let north = (w * w + x * x - y * y - z * z) / norm;
    let east = 2.0 * (x * y + w * z) / norm;
    let down = 2.0 * (x * z - w * y) / norm;
    Some(direction(north, east, down))
}

/// The direction of a vector of length one in north-east-down.
pub fn direction(north: f64, east: f64, down: f64) -> (Option<f64>, f64) {
    let flat = north.hypot(east);
    let azimuth = (flat > 1e-3).then(|| turn(east.atan2(north).to_degrees()));
    (azimuth, (-down).atan2(flat).to_degrees())
}

/// Any angle as 0..360.
pub fn turn(degrees: f64) -> f64 {
    let t = degrees.rem_euclid(360.0);
    // A tiny negative angle rounds up to a full turn.
    if t < 360.0 { t } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[allow(clippy::cast_possible_truncation, reason = "a test's angles")]
    fn pitch_and_yaw_come_back() {
        for (yaw, pitch) in [
            (0.0_f64, 0.0_f64),
            (90.0, -30.0),
            (200.0, 45.0),
            (359.0, -89.0),
        ] {
            let (y, p) = (yaw.to_radians() / 2.0, pitch.to_radians() / 2.0);
            let q = [
                (y.cos() * p.cos()) as f32,
                (-y.sin() * p.sin()) as f32,
                (y.cos() * p.sin()) as f32,
                (y.sin() * p.cos()) as f32,
            ];
            let (azimuth, elevation) = axis(q).unwrap();
            let off = (azimuth.unwrap() - yaw).rem_euclid(360.0);
            assert!(off.min(360.0 - off) < 1e-2, "{yaw}: {azimuth:?}");
            assert!((elevation - pitch).abs() < 1e-3, "{pitch}: {elevation}");
        }
        let down = axis([0.707_106_77, 0.0, -0.707_106_77, 0.0]).unwrap();
        assert!(down.0.is_none() && (down.1 + 90.0).abs() < 0.1);
        assert_eq!(axis([0.0; 4]), None);
        assert_eq!(axis([f32::NAN; 4]), None);
    }
}
