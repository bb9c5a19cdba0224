//! Distances and travel-time estimates, where no routing service is asked.

use serde::{Deserialize, Serialize};

/// A place on Earth, WGS 84 degrees.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Coordinates {
    /// Degrees north, -90 to 90.
    pub latitude: f64,
    /// Degrees east, -180 to 180.
    pub longitude: f64,
}

/// Mean Earth radius in kilometres (IUGG).
const EARTH_RADIUS_KM: f64 = 6_371.008_8;
/// Streets are longer than the line between two points; 1.35 is a usual factor for European and US cities.
const DETOUR_FACTOR: f64 = 1.35;
/// Average urban driving speed, traffic lights and parking included.
const URBAN_SPEED_KM_H: f64 = 28.0;

impl Coordinates {
    /// True when both numbers are finite and in range.
    #[must_use]
    pub fn is_valid(&self) -> bool {
        (-90.0..=90.0).contains(&self.latitude) && (-180.0..=180.0).contains(&self.longitude)
    }

    /// Great-circle distance in kilometres (haversine).
    #[must_use]
    pub fn distance_km(&self, other: &Self) -> f64 {
        let (lat_a, lat_b) = (self.latitude.to_radians(), other.latitude.to_radians());
        let half_lat = (lat_b - lat_a) / 2.0;
        let half_lon = (other.longitude - self.longitude).to_radians() / 2.0;
        let h = half_lat.sin().powi(2) + lat_a.cos() * lat_b.cos() * half_lon.sin().powi(2);
        2.0 * EARTH_RADIUS_KM * h.clamp(0.0, 1.0).sqrt().asin()
    }

    /// Estimated driving time in milliseconds: a detour factor and an average urban speed. An estimate for feasibility
    /// checks; a routing service replaces it where one is configured.
    #[must_use]
    pub fn travel_millis(&self, other: &Self) -> i64 {
        let hours = self.distance_km(other) * DETOUR_FACTOR / URBAN_SPEED_KM_H;
        (hours * 3_600_000.0) as i64
    }
}
