//! What goes wrong on the demo's day: which phones lose the network when, and who does what out of the ordinary. Chosen so
//! that most of the conflict rules really have to decide something.

use crate::city::City;
use rand::{RngExt, rngs::SmallRng};
use std::collections::BTreeMap;
use sync_core::domain::{ServiceOrderId, TechnicianId, Timestamp, Window};

/// Something out of the ordinary that a technician does on a visit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Twist {
    /// Refuses it as soon as it is seen.
    Reject(&'static str),
    /// Takes it no earlier than this.
    AcceptAfter(Timestamp),
    /// Refuses it on site (rule 4).
    RejectOnSite(&'static str),
    /// Uses a part with this serial number (rule 7).
    Serial(&'static str),
    /// Uses this many of the first required part (rule 7).
    Quantity(u32),
    /// Asks the customer's people to wait for the new window and acknowledges it (rule 13).
    AwaitNewWindow,
}

/// The day's script.
#[derive(Debug, Clone, PartialEq)]
pub struct Script {
    /// When each phone has no network.
    pub outages: BTreeMap<TechnicianId, Vec<Window>>,
    /// How far each phone's clock is ahead, milliseconds (rule 6).
    pub skew_ms: BTreeMap<TechnicianId, i64>,
    /// What technicians do out of the ordinary.
    pub twists: BTreeMap<(TechnicianId, ServiceOrderId), Vec<Twist>>,
}

/// The ids that the incidents name, all defined by the city's files.
pub mod cast {
    /// Lead and crew answer the same item (rule 5).
    pub const CREW: (&str, &str, &str) = ("SO-111", "TECH-21", "TECH-22");
    /// Completed offline, then cancelled (rule 2).
    pub const COMPLETED_THEN_CANCELLED: (&str, &str) = ("SO-121", "TECH-12");
    /// Cancelled, then completed offline (rule 2).
    pub const CANCELLED_THEN_COMPLETED: (&str, &str) = ("SO-129", "TECH-13");
    /// Cancelled while the phone is offline, not started (rule 1).
    pub const CANCELLED_UNSTARTED: (&str, &str) = ("SO-156", "TECH-14");
    /// Re-assigned after an offline start (rule 3): order, from, to.
    pub const REASSIGNED_STARTED: (&str, &str, &str) = ("SO-116", "TECH-15", "TECH-23");
    /// Re-assigned before the start, accepted late (rules 3, 4): order, from, to.
    pub const REASSIGNED_UNSTARTED: (&str, &str, &str) = ("SO-117", "TECH-17", "TECH-22");
    /// The window moves while travelling (rule 13).
    pub const WINDOW_MOVED: (&str, &str) = ("SO-141", "TECH-10");
    /// Cancelled after arrival (rule 17).
    pub const STOP_WORK: (&str, &str) = ("SO-125", "TECH-11");
    /// Rejected, moved to the afternoon, given to somebody else: order, from, to.
    pub const REJECTED: (&str, &str, &str) = ("SO-152", "TECH-11", "TECH-23");
    /// Rejected on site (rule 4).
    pub const REJECTED_ON_SITE: (&str, &str) = ("SO-122", "TECH-19");
    /// The same serial number on two visits (rule 7).
    pub const SERIAL_TWICE: [(&str, &str); 2] = [("SO-136", "TECH-16"), ("SO-155", "TECH-20")];
    /// More used than in stock (rule 7).
    pub const STOCK_NEGATIVE: (&str, &str) = ("SO-118", "TECH-13");
    /// Arrived offline before the deadline, the breach already announced (rule 12).
    pub const LATE_NEWS: (&str, &str) = ("SO-107", "TECH-17");
    /// The phone whose clock is seven minutes ahead (rule 6).
    pub const WRONG_CLOCK: &str = "TECH-16";
    /// The order whose event comes twice (rule 18).
    pub const SEEN_TWICE: &str = "SO-100";
    /// Every order that plays a part above; nothing else is left to chance with these.
    pub const ALL_ORDERS: [&str; 15] = [
        CREW.0,
        COMPLETED_THEN_CANCELLED.0,
        CANCELLED_THEN_COMPLETED.0,
        CANCELLED_UNSTARTED.0,
        REASSIGNED_STARTED.0,
        REASSIGNED_UNSTARTED.0,
        WINDOW_MOVED.0,
        STOP_WORK.0,
        REJECTED.0,
        REJECTED_ON_SITE.0,
        SERIAL_TWICE[0].0,
        SERIAL_TWICE[1].0,
        STOCK_NEGATIVE.0,
        LATE_NEWS.0,
        SEEN_TWICE,
    ];
}

/// Hour and minute of the day, UTC.
type TimeOfDay = (i64, i64);

/// Outages that the incidents need.
const OUTAGES: [(&str, TimeOfDay, TimeOfDay); 7] = [
    ("TECH-12", (8, 10), (9, 22)),
    ("TECH-13", (8, 52), (10, 5)),
    ("TECH-14", (8, 0), (8, 50)),
    ("TECH-15", (7, 38), (8, 2)),
    ("TECH-17", (6, 10), (7, 42)),
    ("TECH-22", (6, 38), (7, 12)),
    ("TECH-21", (6, 38), (6, 58)),
];

impl Script {
    /// The script for a city's day. The incidents are fixed; further outages are drawn.
    ///
    /// # Errors
    /// The id that the city's files do not define.
    pub fn new(city: &City, rng: &mut SmallRng) -> Result<Self, sync_core::domain::IdError> {
        let midnight = midnight(city.working_day().start);
        let at = |(hour, minute): (i64, i64)| midnight.plus_millis((hour * 60 + minute) * 60_000);
        let mut outages: BTreeMap<TechnicianId, Vec<Window>> =
            city.technicians.keys().map(|technician| (technician.clone(), Vec::new())).collect();
        for (technician, start, end) in OUTAGES {
            let window = Window { start: at(start), end: at(end) };
            outages.entry(TechnicianId::new(technician)?).or_default().push(window);
        }
        draw_outages(city, &mut outages, rng);

        let mut skew_ms: BTreeMap<_, _> =
            city.technicians.keys().map(|technician| (technician.clone(), rng.random_range(-4_000..4_000))).collect();
        skew_ms.insert(TechnicianId::new(cast::WRONG_CLOCK)?, 7 * 60_000);
        skew_ms.insert(TechnicianId::new("TECH-20")?, -45_000);

        let mut twists: BTreeMap<_, Vec<Twist>> = BTreeMap::new();
        let mut twist = |(order, technician): (&str, &str), twist| {
            let key = (TechnicianId::new(technician)?, ServiceOrderId::new(order)?);
            twists.entry(key).or_default().push(twist);
            Ok::<(), sync_core::domain::IdError>(())
        };
        let (order, from, _) = cast::REASSIGNED_UNSTARTED;
        twist((order, from), Twist::AcceptAfter(at((7, 0))))?;
        let (order, from, _) = cast::REJECTED;
        twist((order, from), Twist::Reject("Camera lift is booked out today, I cannot reach number 12 without it"))?;
        twist(
            cast::REJECTED_ON_SITE,
            Twist::RejectOnSite("Door frame is under heritage protection, nobody may drill"),
        )?;
        twist(cast::WINDOW_MOVED, Twist::AwaitNewWindow)?;
        twist(cast::STOCK_NEGATIVE, Twist::Quantity(5))?;
        for visit in cast::SERIAL_TWICE {
            twist(visit, Twist::Serial("SN-5101-0077"))?;
        }
        Ok(Self { outages, skew_ms, twists })
    }

    /// What is out of the ordinary about a technician's visit.
    #[must_use]
    pub fn twists(&self, technician: &TechnicianId, order: &ServiceOrderId) -> &[Twist] {
        self.twists.get(&(technician.clone(), order.clone())).map_or(&[], Vec::as_slice)
    }
}

/// One or two more outages a phone: a lift shaft, a basement, a dead battery.
fn draw_outages(city: &City, outages: &mut BTreeMap<TechnicianId, Vec<Window>>, rng: &mut SmallRng) {
    const HOUR_MS: i64 = 3_600_000;
    // Visits whose incident needs the network.
    let connected = [cast::WINDOW_MOVED.0, cast::STOP_WORK.0, cast::REJECTED.0];
    for (technician, windows) in outages {
        let orders: Vec<_> = city.orders_of(technician).collect();
        for order in orders {
            let wanted = rng.random_range(0..100) < 40 && !connected.contains(&order.service_order_id.as_str());
            let start = order.schedule_start.plus_millis(rng.random_range(-HOUR_MS / 4..HOUR_MS / 4));
            let window = Window { start, end: start.plus_millis(rng.random_range(HOUR_MS / 3..HOUR_MS)) };
            let near = Window { start: start.plus_millis(-HOUR_MS / 6), end: window.end.plus_millis(HOUR_MS / 6) };
            let early = order.schedule_start.millis_since(city.working_day().start) < 3 * HOUR_MS;
            if wanted && !early && windows.iter().all(|other| !other.overlaps(&near)) {
                windows.push(window);
            }
        }
        windows.sort_by_key(|window| window.start);
    }
}

/// The UTC midnight before `at`.
fn midnight(at: Timestamp) -> Timestamp {
    const DAY_MS: i64 = 24 * 3_600_000;
    Timestamp::from_millis(at.millis().div_euclid(DAY_MS) * DAY_MS)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use rand::SeedableRng;

    #[test]
    fn everybody_whom_the_script_names_exists_and_has_that_visit() {
        let city = City::vienna().unwrap();
        let script = Script::new(&city, &mut SmallRng::seed_from_u64(1)).unwrap();
        for (technician, order) in script.twists.keys() {
            assert_eq!(city.plan.get(order), Some(technician), "{order}");
        }
        for (order, technician) in [
            cast::COMPLETED_THEN_CANCELLED,
            cast::CANCELLED_THEN_COMPLETED,
            cast::CANCELLED_UNSTARTED,
            cast::STOP_WORK,
            cast::LATE_NEWS,
            (cast::CREW.0, cast::CREW.1),
            (cast::REASSIGNED_STARTED.0, cast::REASSIGNED_STARTED.1),
        ] {
            let order = ServiceOrderId::new(order).unwrap();
            assert_eq!(city.plan.get(&order).map(TechnicianId::as_str), Some(technician), "{order}");
        }
        for technician in script.outages.keys() {
            assert!(city.technicians.contains_key(technician));
        }
    }

    #[test]
    fn whoever_takes_over_can_do_it_and_is_free() {
        let city = City::vienna().unwrap();
        for (order, _, to) in [cast::REASSIGNED_STARTED, cast::REASSIGNED_UNSTARTED] {
            let order = city.orders.iter().map(|event| &event.payload).find(|o| o.service_order_id.as_str() == order);
            let order = order.unwrap();
            let to = TechnicianId::new(to).unwrap();
            assert!(city.technicians[&to].satisfies(&order.required_skills, order.schedule_start));
            let window = Window { start: order.schedule_start, end: order.schedule_end };
            for other in city.orders_of(&to) {
                let busy = Window { start: other.schedule_start, end: other.schedule_end };
                assert!(!busy.overlaps(&window), "{} is busy", city.technicians[&to].name);
            }
        }
    }

    #[test]
    fn the_late_news_would_have_been_in_time() {
        let city = City::vienna().unwrap();
        let script = Script::new(&city, &mut SmallRng::seed_from_u64(1)).unwrap();
        let order = city.orders.iter().map(|event| &event.payload);
        let order = order.clone().find(|o| o.service_order_id.as_str() == cast::LATE_NEWS.0).unwrap();
        let outage = script.outages[&TechnicianId::new(cast::LATE_NEWS.1).unwrap()][0];
        assert!(outage.contains(order.schedule_start), "the arrival happens offline");
        assert!(outage.contains(order.sla_deadline), "the deadline passes meanwhile");
        assert!(order.schedule_start < order.sla_deadline);
    }

    #[test]
    fn one_seed_gives_one_day() {
        let city = City::vienna().unwrap();
        let script = |seed| Script::new(&city, &mut SmallRng::seed_from_u64(seed)).unwrap();
        assert_eq!(script(7), script(7));
        assert_ne!(script(7).outages, script(8).outages);
        for windows in script(7).outages.values() {
            assert!(windows.windows(2).all(|pair| pair[0].end <= pair[1].start));
        }
    }
}
