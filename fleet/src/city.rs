//! The demo's input: one city with true coordinates, its technicians, a day of service orders, and the dispatcher's plan.
//!
//! The files under `data/` are compiled in, so that the demo needs nothing but the binary. Times in them are those of
//! one fixed day; [`City::shifted`] moves all of them to the day that is simulated.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use sync_core::domain::geo::Coordinates;
use sync_core::domain::plan::{ChecklistItem, Contact, PartRequirement, Priority, SkillRequirement};
use sync_core::domain::{
    EventId, LocationId, PartNumber, ServiceOrderId, SkillCode, TechnicianId, TenantId, Timestamp, Window,
};

/// Why the city's data cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CityError {
    /// A file is not what it should be.
    #[error("{file}, line {line}: {detail}")]
    Malformed {
        /// Which file.
        file: &'static str,
        /// From 1.
        line: usize,
        /// What the parser says.
        detail: String,
    },
    /// A line names something that no file defines.
    #[error("{file}: {what} is not defined")]
    Unknown {
        /// Which file.
        file: &'static str,
        /// The id.
        what: String,
    },
    /// The same id twice.
    #[error("{file}: {what} is defined twice")]
    Twice {
        /// Which file.
        file: &'static str,
        /// The id.
        what: String,
    },
}

/// A site.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Site {
    /// Which.
    pub location_id: LocationId,
    /// As the customer calls it.
    pub name: String,
    /// Postal address, one line.
    pub address: String,
    /// Where it is.
    pub coordinates: Coordinates,
    /// Gate, key box, quiet hours.
    pub access_notes: String,
}

/// A skill of a technician.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Skill {
    /// Which.
    pub code: SkillCode,
    /// 1 the lowest.
    pub level: u8,
    /// Not valid from then on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Timestamp>,
}

/// A technician as the back office registers one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Technician {
    /// Which.
    pub technician_id: TechnicianId,
    /// Name.
    pub name: String,
    /// What they can do.
    pub skills: Vec<Skill>,
    /// Where the day starts.
    pub home_base: Coordinates,
    /// Service territory.
    pub territory: String,
    /// Shifts.
    pub availability: Vec<Window>,
    /// Truck stock.
    pub van_stock: BTreeMap<PartNumber, i64>,
}

/// A `ServiceOrderScheduledEvent` in its envelope, as Service Orders publishes it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OrderEvent {
    /// `ServiceOrderScheduledEvent`.
    pub event_type: String,
    /// Stable.
    pub event_id: EventId,
    /// When Service Orders decided it.
    pub timestamp: Timestamp,
    /// The service order.
    pub aggregate_id: String,
    /// Whose.
    pub tenant_id: TenantId,
    /// The order.
    pub payload: Order,
}

/// The order inside a [`OrderEvent`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Order {
    /// Which.
    pub service_order_id: ServiceOrderId,
    /// Planned start.
    pub schedule_start: Timestamp,
    /// Planned end.
    pub schedule_end: Timestamp,
    /// Where.
    pub location_id: LocationId,
    /// Headline.
    pub title: String,
    /// What to do.
    pub instructions: String,
    /// Urgency.
    pub priority: Priority,
    /// What the technician must be able to do.
    pub required_skills: Vec<SkillRequirement>,
    /// What to bring.
    pub required_parts: Vec<PartRequirement>,
    /// Arrive before this.
    pub sla_deadline: Timestamp,
    /// What the customer was told.
    pub arrival_window: Window,
    /// Whom to ask for.
    pub contact: Contact,
    /// What to tick off.
    pub checklist: Vec<ChecklistItem>,
    /// The tenant's own fields.
    pub attributes: BTreeMap<String, String>,
}

/// A city's day.
#[derive(Debug, Clone, PartialEq)]
pub struct City {
    /// Its name.
    pub name: &'static str,
    /// South-west and north-east corner of the city's limits.
    pub bounds: (Coordinates, Coordinates),
    /// Sites by id.
    pub sites: BTreeMap<LocationId, Site>,
    /// Technicians by id.
    pub technicians: BTreeMap<TechnicianId, Technician>,
    /// The day's orders, in the order of their planned start.
    pub orders: Vec<OrderEvent>,
    /// Who shall do which order, as the dispatcher planned the day before.
    pub plan: BTreeMap<ServiceOrderId, TechnicianId>,
}

const LOCATIONS: &str = include_str!("../data/vienna/locations.json");
const TECHNICIANS: &str = include_str!("../data/vienna/technicians.json");
const ORDERS: &str = include_str!("../data/vienna/service-orders.jsonl");
const PLAN: &str = include_str!("../data/vienna/plan.json");

/// The day's service orders as they arrive, one envelope a line: what `crm-dispatch ingest` reads.
#[must_use]
pub fn vienna_order_lines() -> &'static str {
    ORDERS
}

impl City {
    /// Vienna on 3 February 2026.
    ///
    /// # Errors
    /// [`CityError`] when the compiled-in data is wrong; a test holds that it is not.
    pub fn vienna() -> Result<Self, CityError> {
        let sites: Vec<Site> = json("locations.json", 1, LOCATIONS)?;
        let technicians: Vec<Technician> = json("technicians.json", 1, TECHNICIANS)?;
        let orders = ORDERS
            .lines()
            .enumerate()
            .map(|(index, line)| json("service-orders.jsonl", index + 1, line))
            .collect::<Result<Vec<OrderEvent>, _>>()?;
        let city = Self {
            name: "Vienna",
            bounds: (
                Coordinates { latitude: 48.1179, longitude: 16.1818 },
                Coordinates { latitude: 48.3226, longitude: 16.5775 },
            ),
            sites: by_id("locations.json", sites, |site| site.location_id.clone())?,
            technicians: by_id("technicians.json", technicians, |technician| technician.technician_id.clone())?,
            orders,
            plan: json("plan.json", 1, PLAN)?,
        };
        city.check_references()?;
        Ok(city)
    }

    fn check_references(&self) -> Result<(), CityError> {
        let unknown = |file, what: &str| CityError::Unknown { file, what: what.to_owned() };
        let mut orders = std::collections::BTreeSet::new();
        for event in &self.orders {
            let order = &event.payload;
            if !self.sites.contains_key(&order.location_id) {
                return Err(unknown("service-orders.jsonl", order.location_id.as_str()));
            }
            if !orders.insert(&order.service_order_id) {
                let what = order.service_order_id.to_string();
                return Err(CityError::Twice { file: "service-orders.jsonl", what });
            }
        }
        for (order, technician) in &self.plan {
            if !orders.contains(order) {
                return Err(unknown("plan.json", order.as_str()));
            }
            if !self.technicians.contains_key(technician) {
                return Err(unknown("plan.json", technician.as_str()));
            }
        }
        Ok(())
    }

    /// The same day, every time moved by `millis`.
    #[must_use]
    pub fn shifted(mut self, millis: i64) -> Self {
        let window = |w: &mut Window| {
            w.start = w.start.plus_millis(millis);
            w.end = w.end.plus_millis(millis);
        };
        for technician in self.technicians.values_mut() {
            technician.availability.iter_mut().for_each(window);
            for expiry in technician.skills.iter_mut().filter_map(|skill| skill.expires_at.as_mut()) {
                *expiry = expiry.plus_millis(millis);
            }
        }
        for event in &mut self.orders {
            event.timestamp = event.timestamp.plus_millis(millis);
            let order = &mut event.payload;
            order.schedule_start = order.schedule_start.plus_millis(millis);
            order.schedule_end = order.schedule_end.plus_millis(millis);
            order.sla_deadline = order.sla_deadline.plus_millis(millis);
            window(&mut order.arrival_window);
        }
        self
    }

    /// The same day, moved by whole days so that its first shift lies on the UTC day of `on`.
    #[must_use]
    pub fn on_day(self, on: Timestamp) -> Self {
        const DAY_MS: i64 = 24 * 3_600_000;
        let day = |at: Timestamp| at.millis().div_euclid(DAY_MS);
        let days = day(on) - day(self.working_day().start);
        self.shifted(days * DAY_MS)
    }

    /// When the first shift begins and the last one ends.
    #[must_use]
    pub fn working_day(&self) -> Window {
        let shifts = || self.technicians.values().flat_map(|technician| &technician.availability);
        Window {
            start: shifts().map(|shift| shift.start).min().unwrap_or_default(),
            end: shifts().map(|shift| shift.end).max().unwrap_or_default(),
        }
    }

    /// A technician's orders by the plan, in the order of their start.
    pub fn orders_of<'a>(&'a self, technician: &'a TechnicianId) -> impl Iterator<Item = &'a Order> {
        self.orders
            .iter()
            .map(|event| &event.payload)
            .filter(move |order| self.plan.get(&order.service_order_id) == Some(technician))
    }
}

impl Technician {
    /// True when every requirement is met: level reached, and not expired at `at`.
    #[must_use]
    pub fn satisfies(&self, requirements: &[SkillRequirement], at: Timestamp) -> bool {
        requirements.iter().all(|required| {
            self.skills.iter().any(|skill| {
                skill.code == required.code
                    && skill.level >= required.level
                    && skill.expires_at.is_none_or(|expiry| expiry > at)
            })
        })
    }
}

fn json<T: DeserializeOwned>(file: &'static str, first_line: usize, text: &str) -> Result<T, CityError> {
    serde_json::from_str(text).map_err(|error| CityError::Malformed {
        file,
        line: first_line + error.line().saturating_sub(1),
        detail: error.to_string(),
    })
}

fn by_id<K: Ord + ToString, V>(
    file: &'static str,
    values: Vec<V>,
    id: impl Fn(&V) -> K,
) -> Result<BTreeMap<K, V>, CityError> {
    let mut map = BTreeMap::new();
    for value in values {
        let key = id(&value);
        let what = key.to_string();
        if map.insert(key, value).is_some() {
            return Err(CityError::Twice { file, what });
        }
    }
    Ok(map)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use super::*;

    #[test]
    fn the_day_has_at_least_twelve_technicians_and_sixty_orders() {
        let city = City::vienna().unwrap();
        assert_eq!(city.orders.len(), 60);
        assert_eq!(city.technicians.len(), 14);
        assert!(city.sites.len() >= 45, "{} sites", city.sites.len());
        let busy: std::collections::BTreeSet<_> = city.plan.values().collect();
        assert!(busy.len() >= 12, "only {} technicians have work", busy.len());
        let ids: std::collections::BTreeSet<_> = city.orders.iter().map(|event| &event.event_id).collect();
        assert_eq!(ids.len(), 60, "event ids are unique");
        assert!(city.orders.is_sorted_by_key(|event| event.payload.schedule_start));
    }

    #[test]
    fn every_site_lies_in_the_city_and_no_two_in_the_same_place() {
        let city = City::vienna().unwrap();
        let (south_west, north_east) = city.bounds;
        let inside = |at: &Coordinates| {
            (south_west.latitude..north_east.latitude).contains(&at.latitude)
                && (south_west.longitude..north_east.longitude).contains(&at.longitude)
        };
        let stephansplatz = Coordinates { latitude: 48.2085, longitude: 16.3725 };
        let sites: Vec<_> = city.sites.values().collect();
        for (index, site) in sites.iter().enumerate() {
            assert!(inside(&site.coordinates), "{} is not in Vienna", site.name);
            assert!(site.coordinates.distance_km(&stephansplatz) < 12.0, "{} is too far out", site.name);
            assert!(site.address.contains(" Wien"), "{}", site.address);
            for other in &sites[index + 1..] {
                assert!(site.coordinates.distance_km(&other.coordinates) > 0.03, "{} and {}", site.name, other.name);
            }
        }
        for technician in city.technicians.values() {
            assert!(inside(&technician.home_base), "{}", technician.name);
        }
        // Two distances that any map confirms.
        let at = |name: &str| sites.iter().find(|site| site.name == name).unwrap().coordinates;
        let opera_to_museum = at("Wiener Staatsoper").distance_km(&at("Kunsthistorisches Museum"));
        assert!((0.4..0.7).contains(&opera_to_museum), "{opera_to_museum}");
        let west_to_main = at("Wien Westbahnhof").distance_km(&at("Wien Hauptbahnhof"));
        assert!((2.8..3.6).contains(&west_to_main), "{west_to_main}");
    }

    #[test]
    fn the_plan_is_feasible() {
        let city = City::vienna().unwrap();
        assert_eq!(city.plan.len(), 60, "every order has a technician");
        for technician in city.technicians.values() {
            let shift = technician.availability[0];
            let mut from = technician.home_base;
            let mut free_at = shift.start;
            for order in city.orders_of(&technician.technician_id) {
                let site = &city.sites[&order.location_id];
                let arrival = free_at.plus_millis(from.travel_millis(&site.coordinates));
                assert!(
                    arrival <= order.schedule_start,
                    "{} reaches {} at {arrival}, planned {}",
                    technician.name,
                    site.name,
                    order.schedule_start
                );
                assert!(order.schedule_end <= shift.end, "{} works overtime", technician.name);
                assert!(order.schedule_start < order.schedule_end);
                assert!(order.schedule_start < order.sla_deadline);
                assert!(order.arrival_window.contains(order.schedule_start));
                assert!(
                    technician.satisfies(&order.required_skills, order.schedule_start),
                    "{} may not do {}",
                    technician.name,
                    order.title
                );
                for part in &order.required_parts {
                    let stock = technician.van_stock.get(&part.part).copied().unwrap_or_default();
                    assert!(stock >= i64::from(part.quantity), "{} lacks {}", technician.name, part.part);
                }
                from = site.coordinates;
                free_at = order.schedule_end;
            }
        }
    }

    #[test]
    fn an_expired_skill_does_not_count() {
        let city = City::vienna().unwrap();
        let paul = city.technicians.values().find(|technician| technician.name == "Paul Schwarz").unwrap();
        let fire = [SkillRequirement { code: SkillCode::new("FIRE").unwrap(), level: 1 }];
        assert!(paul.satisfies(&fire, "2026-01-15T08:00:00Z".parse().unwrap()));
        assert!(!paul.satisfies(&fire, city.orders[0].payload.schedule_start));
    }

    #[test]
    fn an_order_has_the_envelope_that_service_orders_publishes() {
        for line in vienna_order_lines().lines() {
            let raw: serde_json::Value = serde_json::from_str(line).unwrap();
            let keys: std::collections::BTreeSet<_> = raw.as_object().unwrap().keys().map(String::as_str).collect();
            let keys: Vec<_> = keys.into_iter().collect();
            assert_eq!(keys, ["aggregateId", "eventId", "eventType", "payload", "tenantId", "timestamp"]);
            assert_eq!(raw["eventType"], "ServiceOrderScheduledEvent");
            assert_eq!(raw["aggregateId"], raw["payload"]["serviceOrderId"]);
            let event: OrderEvent = serde_json::from_str(line).unwrap();
            assert_eq!(serde_json::to_value(&event).unwrap(), raw, "nothing is lost on the way");
        }
    }

    #[test]
    fn shifting_moves_every_time_alike() {
        let city = City::vienna().unwrap();
        let day = 24 * 3_600_000;
        let moved = city.clone().shifted(day);
        assert_eq!(moved.working_day().start, city.working_day().start.plus_millis(day));
        for (before, after) in city.orders.iter().zip(&moved.orders) {
            assert_eq!(after.payload.sla_deadline.millis_since(before.payload.sla_deadline), day);
            assert_eq!(after.payload.arrival_window.end.millis_since(before.payload.arrival_window.end), day);
        }
        assert_eq!(moved.shifted(-day), city);
    }

    #[test]
    fn a_broken_line_is_named() {
        let Err(error) = json::<OrderEvent>("service-orders.jsonl", 7, "{\"eventType\": 3}") else {
            panic!("a number is no event type")
        };
        assert!(matches!(error, CityError::Malformed { line: 7, .. }), "{error}");
    }
}
