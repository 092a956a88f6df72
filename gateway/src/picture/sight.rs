//! Where a camera in the air looks: the part of the ground that is in its picture.
//!
//! Here: the footprint on flat ground out of angles and height, or as the device says itself, and how exact that is.
//! Not here: the terrain (the ground is a plane at the height the device tells), what the picture shows.

use kerbside_codecs::telemetry::report::Sight;
use serde::Serialize;

/// Farther than this nothing is told apart, and a small error of an angle is a kilometre: the footprint ends here.
const RANGE_MAX_M: f64 = 2_000.0;
/// One standard deviation of a gimbal's elevation, of a compass, of a height over ground (and its part).
const ELEVATION_SIGMA_DEG: f64 = 1.0;
const AZIMUTH_SIGMA_DEG: f64 = 3.0;
const HEIGHT_SIGMA_M: f64 = 2.0;
const HEIGHT_SIGMA_PART: f64 = 0.05;
/// Widest picture that is one: a fish-eye has no corners.
const FIELD_MAX_DEG: f64 = 170.0;
const DEGREE_M: f64 = 111_195.08;

/// What is in the picture, on the ground. Points are `[lon, lat]`, WGS-84.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Footprint {
    /// Four corners: of the picture's upper left, upper right, lower right, lower left; as the device orders them when it
    /// tells them itself. Empty: only the centre is known.
    pub polygon: Vec<[f64; 2]>,
    /// None: the middle of the picture is above the horizon or farther than the footprint goes.
    pub centre: Option<[f64; 2]>,
    /// One standard deviation of the centre (of the lower edge where there is none), metres; None: not known.
    pub sigma_m: Option<f32>,
    /// The picture reaches farther than 2 km or over the horizon; the polygon ends there.
    pub is_cut: bool,
}

/// Where the camera is.
#[derive(Clone, Copy, Debug)]
pub struct Stand {
    pub lat: f64,
    pub lon: f64,
    /// On each axis.
    pub sigma_m: f64,
}

/// None: something is missing, or the whole picture is above the horizon.
pub fn footprint(sight: &Sight, stand: Option<Stand>) -> Option<Footprint> {
    if sight.corners.len() == 4 || (stand.is_none() && sight.centre.is_some()) {
        return Some(told(sight, stand));
    }
    let stand = stand?;
    let computed = aim(sight, &stand).and_then(|aim| aim.footprint(&stand));
    computed.or_else(|| sight.centre.map(|_| told(sight, Some(stand))))
}

/// As the device says.
fn told(sight: &Sight, stand: Option<Stand>) -> Footprint {
    let polygon: Vec<_> = sight
        .corners
        .iter()
        .map(|(lat, lon)| [*lon, *lat])
        .collect();
    let middle = || {
        let sum = polygon
            .iter()
            .fold([0.0; 2], |s, p| [s[0] + p[0], s[1] + p[1]]);
        let n = polygon.len() as f64;
        (n > 0.0).then(|| [sum[0] / n, sum[1] / n])
    };
    let centre = sight.centre.map(|(lat, lon)| [lon, lat]).or_else(middle);
    let sigma_m = stand.zip(centre).map(|(s, c)| {
        let [east, north] = s.plane(c[1], c[0]);
        let far = east.hypot(north).min(RANGE_MAX_M);
        match sight.height_m.filter(|h| *h > 1.0) {
            Some(height) => sigma(far, height, s.sigma_m),
            None => (far * AZIMUTH_SIGMA_DEG.to_radians()).hypot(s.sigma_m) as f32,
        }
    });
    Footprint {
        polygon,
        centre,
        sigma_m,
        is_cut: false,
    }
}

/// Radians and metres.
struct Aim {
    azimuth: f64,
    elevation: f64,
    half_width: f64,
    half_height: f64,
    height_m: f64,
}

fn aim(s: &Sight, stand: &Stand) -> Option<Aim> {
    let height_m = s.height_m.filter(|h| h.is_finite() && *h > 1.0)?;
    // From the middle of the picture where the device gives that instead of the angles.
    let middle = s.centre.map(|(lat, lon)| stand.plane(lat, lon));
    let to_middle = |f: fn([f64; 2], f64) -> f64| middle.map(|m| f(m, height_m));
    let azimuth = s
        .azimuth_deg
        .map(f64::to_radians)
        .or_else(|| to_middle(|m, _| m[0].atan2(m[1])))?;
    let elevation = s
        .elevation_deg
        .map(f64::to_radians)
        .or_else(|| to_middle(|m, h| (-h).atan2(m[0].hypot(m[1]))))?;
    let field = |deg: Option<f64>| {
        deg.filter(|d| *d > 0.0 && *d <= FIELD_MAX_DEG)
            .map(|d| d.to_radians() / 2.0)
    };
    let aim = Aim {
        azimuth,
        elevation,
        half_width: field(s.hfov_deg)?,
        half_height: field(s.vfov_deg)?,
        height_m,
    };
    (aim.azimuth.is_finite() && aim.elevation.is_finite()).then_some(aim)
}

impl Aim {
    /// Where the ray through a point of the picture meets the ground: metres east and north, and whether it was cut.
    /// `right`, `up`: −1..=1 across the picture.
    fn hit(&self, right: f64, up: f64) -> ([f64; 2], bool) {
        let (sin_a, cos_a) = self.azimuth.sin_cos();
        let (sin_e, cos_e) = self.elevation.sin_cos();
        let (r, u) = (right * self.half_width.tan(), up * self.half_height.tan());
        let east = sin_a * cos_e + r * cos_a - u * sin_a * sin_e;
        let north = cos_a * cos_e - r * sin_a - u * cos_a * sin_e;
        let down = -(sin_e + u * cos_e);
        let flat = east.hypot(north);
        if down <= 0.0 || flat * self.height_m > RANGE_MAX_M * down {
            let k = RANGE_MAX_M / flat.max(1e-12);
            return ([east * k, north * k], true);
        }
        let k = self.height_m / down;
        ([east * k, north * k], false)
    }

    fn footprint(&self, stand: &Stand) -> Option<Footprint> {
        let corners = [(-1.0, 1.0), (1.0, 1.0), (1.0, -1.0), (-1.0, -1.0)];
        let hits = corners.map(|(right, up)| self.hit(right, up));
        if hits.iter().all(|(_, is_cut)| *is_cut) {
            return None;
        }
        let (middle, is_far) = self.hit(0.0, 0.0);
        let (lower, is_lower_far) = self.hit(0.0, -1.0);
        let shown = if is_far { lower } else { middle };
        let far = shown[0].hypot(shown[1]);
        Some(Footprint {
            polygon: hits.iter().map(|(p, _)| stand.earth(*p)).collect(),
            centre: (!is_far).then(|| stand.earth(middle)),
            sigma_m: (!is_far || !is_lower_far).then(|| sigma(far, self.height_m, stand.sigma_m)),
            is_cut: hits.iter().any(|(_, is_cut)| *is_cut),
        })
    }
}

/// Of a point `far_m` away on the ground, seen from `height_m`: along the ray the worst, so that is what is told.
fn sigma(far_m: f64, height_m: f64, stand_sigma_m: f64) -> f32 {
    let slant2 = far_m * far_m + height_m * height_m;
    let along = slant2 / height_m * ELEVATION_SIGMA_DEG.to_radians();
    let across = far_m * AZIMUTH_SIGMA_DEG.to_radians();
    let height = far_m / height_m * HEIGHT_SIGMA_M.hypot(height_m * HEIGHT_SIGMA_PART);
    #[allow(clippy::cast_possible_truncation, reason = "metres")]
    let all = along.hypot(height).max(across).hypot(stand_sigma_m) as f32;
    all
}

impl Stand {
    fn east_m(&self) -> f64 {
        DEGREE_M * self.lat.to_radians().cos().max(1e-3)
    }

    fn plane(&self, lat: f64, lon: f64) -> [f64; 2] {
        [
            (lon - self.lon) * self.east_m(),
            (lat - self.lat) * DEGREE_M,
        ]
    }

    /// To a centimetre: more digits would only lengthen the feed.
    fn earth(&self, [east, north]: [f64; 2]) -> [f64; 2] {
        let round = |deg: f64| (deg * 1e7).round() / 1e7;
        [
            round(self.lon + east / self.east_m()),
            round(self.lat + north / DEGREE_M),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: Stand = Stand {
        lat: 37.69,
        lon: 112.75,
        sigma_m: 2.0,
    };

    fn sight(azimuth: f64, elevation: f64, hfov: f64, vfov: f64, height: f64) -> Sight {
        Sight {
            azimuth_deg: Some(azimuth),
            elevation_deg: Some(elevation),
            hfov_deg: Some(hfov),
            vfov_deg: Some(vfov),
            height_m: Some(height),
            ..Sight::default()
        }
    }

    /// Metres east and north of the camera.
    fn metres(f: &Footprint) -> Vec<[i64; 2]> {
        f.polygon
            .iter()
            .chain(&f.centre)
            .map(|p| HERE.plane(p[1], p[0]).map(|m| m.round() as i64))
            .collect()
    }

    /// By hand: straight down from 100 m, 90° wide and 2·atan(0.5) = 53.13° high is 200 m by 100 m.
    #[test]
    fn straight_down() {
        let f = footprint(&sight(0.0, -90.0, 90.0, 53.130_102, 100.0), Some(HERE)).unwrap();
        assert_eq!(
            metres(&f),
            [[-100, 50], [100, 50], [100, -50], [-100, -50], [0, 0]]
        );
        assert!(!f.is_cut);
        // 100 m times one degree, and the two metres of the position.
        assert!((f.sigma_m.unwrap() - 2.65).abs() < 0.05, "{f:?}");
        let east = footprint(&sight(90.0, -90.0, 90.0, 53.130_102, 100.0), Some(HERE)).unwrap();
        assert_eq!(metres(&east)[0], [50, 100], "the upper left turned by 90°");
    }

    /// By hand: 45° down towards the east from 100 m: centre 100 m away; the edges at 45° ± atan(0.5): 300 m and 33 m.
    #[test]
    fn obliquely_to_the_east() {
        let f = footprint(&sight(90.0, -45.0, 90.0, 53.130_102, 100.0), Some(HERE)).unwrap();
        assert_eq!(
            metres(&f),
            [[300, 283], [300, -283], [33, -94], [33, 94], [100, 0]]
        );
        assert!(!f.is_cut && f.sigma_m.unwrap() > 6.0);
    }

    #[test]
    fn over_the_horizon_it_is_cut_and_says_so() {
        let f = footprint(&sight(0.0, -10.0, 60.0, 40.0, 60.0), Some(HERE)).unwrap();
        assert!(f.is_cut);
        let [east, north] = HERE.plane(f.polygon[0][1], f.polygon[0][0]);
        assert!((east.hypot(north) - 2000.0).abs() < 1.0);
        assert!(f.centre.is_some());
        let f = footprint(&sight(0.0, 5.0, 60.0, 40.0, 60.0), Some(HERE)).unwrap();
        assert!(f.is_cut && f.centre.is_none() && f.sigma_m.is_some());
        assert!(footprint(&sight(0.0, 30.0, 60.0, 40.0, 60.0), Some(HERE)).is_none());
    }

    #[test]
    fn what_is_missing_is_not_made_up() {
        let whole = sight(0.0, -45.0, 60.0, 40.0, 60.0);
        assert!(footprint(&whole, None).is_none());
        for without in [
            Sight {
                azimuth_deg: None,
                ..whole.clone()
            },
            Sight {
                elevation_deg: None,
                ..whole.clone()
            },
            Sight {
                hfov_deg: None,
                ..whole.clone()
            },
            Sight {
                vfov_deg: Some(0.0),
                ..whole.clone()
            },
            Sight {
                height_m: None,
                ..whole.clone()
            },
            Sight {
                height_m: Some(-3.0),
                ..whole.clone()
            },
            Sight {
                elevation_deg: Some(f64::NAN),
                ..whole.clone()
            },
        ] {
            assert!(footprint(&without, Some(HERE)).is_none(), "{without:?}");
        }
    }

    #[test]
    fn what_the_device_says_itself_stands() {
        let corners = vec![
            (37.7, 112.74),
            (37.7, 112.76),
            (37.68, 112.76),
            (37.68, 112.74),
        ];
        let f = footprint(
            &Sight {
                corners,
                ..Sight::default()
            },
            Some(HERE),
        )
        .unwrap();
        assert_eq!(f.polygon[1], [112.76, 37.7]);
        let centre = f.centre.unwrap();
        assert!((centre[0] - 112.75).abs() < 1e-9 && (centre[1] - 37.69).abs() < 1e-9);
        let only_centre = Sight {
            centre: Some((37.691, 112.75)),
            ..Sight::default()
        };
        let f = footprint(&only_centre, Some(HERE)).unwrap();
        assert!(f.polygon.is_empty() && f.sigma_m.unwrap() > 2.0);
        // With a field of view and a height the angles follow from the centre.
        let seen = Sight {
            hfov_deg: Some(40.0),
            vfov_deg: Some(30.0),
            height_m: Some(100.0),
            ..only_centre
        };
        let f = footprint(&seen, Some(HERE)).unwrap();
        assert_eq!(f.polygon.len(), 4);
        assert_eq!(metres(&f)[4], [0, 111]);
    }
}
