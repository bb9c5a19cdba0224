//! The scenes: who may do what in a family of small worlds, so that every conflict rule is reached.
//!
//! A world is a word over its scene's alphabet. All words up to the scene's length are played, which is every program of each
//! actor and every interleaving of the programs with the phones' exchanges.

use super::step::{Act, How, Order, Phone, Step};

/// A family of worlds.
#[derive(Debug, Clone)]
pub(super) struct Scene {
    pub(super) name: &'static str,
    /// The rules whose situations it is made for.
    pub(super) rules: &'static [u8],
    /// Ben is on Anna's crew, and both phones hold the visit. Otherwise only Anna's does.
    pub(super) crew: bool,
    /// Anna also has a second visit.
    pub(super) second: bool,
    /// How far Anna's wall clock runs ahead, which the phone has measured.
    pub(super) ahead_ms: i64,
    /// Half-width of what the phones know about time.
    pub(super) uncertainty_ms: u32,
    pub(super) alphabet: Vec<Step>,
    /// Most actions and most exchanges before the last ones.
    pub(super) actions: usize,
    pub(super) exchanges: usize,
}

const HOUR: i64 = 3_600_000;

fn anna(act: Act) -> Step {
    Step::Does(Phone::Anna, act)
}

fn new_anna(act: Act) -> Step {
    Step::Does(Phone::AnnaNew, act)
}

fn ben(act: Act) -> Step {
    Step::Does(Phone::Ben, act)
}

fn office(order: Order) -> Step {
    Step::Office(order)
}

const ANNA: Step = Step::Exchange(Phone::Anna, How::Whole);
const BEN: Step = Step::Exchange(Phone::Ben, How::Whole);

fn scene(name: &'static str, rules: &'static [u8], alphabet: Vec<Step>) -> Scene {
    Scene {
        name,
        rules,
        crew: false,
        second: false,
        ahead_ms: 0,
        uncertainty_ms: 1_000,
        alphabet,
        actions: 6,
        exchanges: 2,
    }
}

/// All of them, each at its full length.
#[allow(clippy::enum_glob_use, clippy::too_many_lines, reason = "a table of letters")]
pub(super) fn all() -> Vec<Scene> {
    use Act::*;
    use Order::*;
    vec![
        scene(
            "The office cancels",
            &[1, 2, 17],
            vec![
                anna(Arrive),
                anna(Complete),
                anna(CannotComplete),
                office(Cancel),
                office(Reinstate),
                office(EndStopWork),
                ANNA,
            ],
        ),
        scene(
            "The office cancels, and nobody arrives",
            &[1],
            vec![anna(Accept), anna(Travel), anna(Labour), office(Cancel), office(Reinstate), ANNA],
        ),
        Scene {
            actions: 5,
            ..scene(
                "Work is stopped",
                &[17],
                vec![
                    anna(Start),
                    anna(Labour),
                    anna(CannotComplete),
                    anna(CompleteUnasked),
                    office(CalledOff),
                    office(EndStopWork),
                    office(Settle),
                    ANNA,
                ],
            )
        },
        Scene {
            uncertainty_ms: 420_000,
            actions: 5,
            ..scene(
                "The clocks cannot tell",
                &[2, 6, 17],
                vec![anna(Arrive), anna(Complete), office(Cancel), office(Reinstate), office(AssignBen), ANNA],
            )
        },
        scene(
            "From Anna to Ben",
            &[3, 14],
            vec![anna(Arrive), anna(Complete), ben(Arrive), office(AssignBen), office(AssignAnna), ANNA, BEN],
        ),
        Scene {
            actions: 5,
            ..scene(
                "From Anna to Ben, and cancelled",
                &[3],
                vec![
                    anna(Arrive),
                    anna(Complete),
                    office(AssignBen),
                    office(Unassign),
                    office(Cancel),
                    office(Reinstate),
                    ANNA,
                    BEN,
                ],
            )
        },
        Scene {
            actions: 5,
            ..scene(
                "Taken or rejected too late",
                &[4],
                vec![
                    anna(Accept),
                    anna(Reject),
                    anna(Arrive),
                    ben(Accept),
                    ben(Reject),
                    office(AssignBen),
                    office(AssignAnna),
                    office(Unassign),
                    ANNA,
                    BEN,
                ],
            )
        },
        Scene {
            crew: true,
            actions: 5,
            ..scene(
                "A crew of two",
                &[5],
                vec![
                    anna(Arrive),
                    anna(Complete),
                    anna(Answer),
                    anna(Note),
                    ben(Arrive),
                    ben(CompleteUnasked),
                    ben(Answer),
                    ben(Note),
                    ANNA,
                    BEN,
                ],
            )
        },
        Scene {
            crew: true,
            actions: 5,
            ..scene(
                "The lead changes",
                &[3, 5],
                vec![
                    anna(Arrive),
                    anna(Complete),
                    ben(Arrive),
                    ben(CompleteUnasked),
                    office(BenLeads),
                    office(AssignAnna),
                    ANNA,
                    BEN,
                ],
            )
        },
        Scene {
            ahead_ms: 3 * HOUR,
            actions: 5,
            ..scene(
                "Anna's clock is three hours ahead",
                &[6],
                vec![anna(Arrive), anna(Complete), office(Cancel), office(AssignBen), ben(Arrive), ANNA, BEN],
            )
        },
        scene(
            "Anna's clock is set back",
            &[6],
            vec![anna(Travel), anna(Arrive), anna(Start), anna(Pause), anna(Complete), Step::ClockBack, ANNA],
        ),
        Scene { crew: true, ..scene("Parts", &[7], vec![anna(Filter), anna(Pump), ben(Filter), ben(Pump), ANNA, BEN]) },
        Scene {
            actions: 5,
            ..scene(
                "A photo under way",
                &[8],
                vec![anna(Photo), anna(Arrive), anna(Complete), office(Cancel), office(AssignBen), ANNA],
            )
        },
        Scene {
            actions: 5,
            ..scene(
                "Anna's phone is lost",
                &[9],
                vec![
                    anna(Arrive),
                    anna(Complete),
                    anna(Filter),
                    office(Revoke),
                    new_anna(Arrive),
                    office(AssignBen),
                    ANNA,
                    Step::Exchange(Phone::AnnaNew, How::Whole),
                ],
            )
        },
        Scene {
            actions: 5,
            ..scene(
                "Anna has a new phone",
                &[10],
                vec![
                    anna(Arrive),
                    anna(Complete),
                    new_anna(Arrive),
                    new_anna(Complete),
                    office(Cancel),
                    ANNA,
                    Step::Exchange(Phone::AnnaNew, How::Whole),
                ],
            )
        },
        Scene {
            actions: 5,
            ..scene(
                "Anna's app is newer",
                &[11],
                vec![anna(Newer), anna(Arrive), anna(Complete), office(Cancel), office(AssignBen), ANNA],
            )
        },
        Scene {
            actions: 5,
            ..scene(
                "The deadline",
                &[12],
                vec![
                    anna(Arrive),
                    anna(CannotComplete),
                    office(Cancel),
                    office(AssignBen),
                    office(Unassign),
                    ben(Arrive),
                    Step::Wait,
                    ANNA,
                    BEN,
                ],
            )
        },
        Scene {
            actions: 5,
            ..scene(
                "The window is moved",
                &[13],
                vec![
                    anna(Travel),
                    anna(SeeWindow),
                    anna(Arrive),
                    office(MoveConfirmed),
                    office(Move),
                    office(Confirmed),
                    office(AssignBen),
                    ANNA,
                ],
            )
        },
        Scene {
            actions: 5,
            ..scene(
                "Who may say it",
                &[14],
                vec![
                    anna(ClaimForeign),
                    anna(Labour),
                    anna(Note),
                    ben(ClaimForeign),
                    office(AssignBen),
                    office(Unassign),
                    ANNA,
                    BEN,
                ],
            )
        },
        Scene {
            second: true,
            actions: 5,
            ..scene(
                "A damaged entry",
                &[15],
                vec![anna(Poison), anna(Arrive), anna(Complete), anna(ArriveElsewhere), office(Cancel), ANNA],
            )
        },
        Scene {
            second: true,
            actions: 5,
            ..scene(
                "Something is missing in between",
                &[16],
                vec![
                    anna(ArriveElsewhere),
                    anna(Arrive),
                    anna(Pause),
                    anna(Complete),
                    anna(Labour),
                    Step::Wait,
                    Step::Exchange(Phone::Anna, How::OneLane),
                    ANNA,
                ],
            )
        },
        Scene {
            actions: 5,
            ..scene(
                "Everything twice",
                &[18],
                vec![
                    anna(Arrive),
                    anna(Filter),
                    anna(Complete),
                    office(CalledOff),
                    office(CalledOffAgain),
                    office(RequestAgain),
                    Step::Exchange(Phone::Anna, How::AnswerLost),
                    ANNA,
                ],
            )
        },
    ]
}

/// Both technicians on the visit, for the phone that they share.
pub(super) fn shared_phone() -> Scene {
    Scene { crew: true, ..scene("One phone for two", &[10], Vec::new()) }
}
