//! The scenes: who may do what in a family of small worlds, so that every conflict rule is reached.
//!
//! A world is a word over its scene's alphabet. All words up to the scene's length are played, which is every program of each
//! actor and every interleaving of the programs with the phones' exchanges. Alphabets are small: what two scenes have in common
//! would be played twice, and what has nothing to do with each other needs no scene together.

use super::step::{Act, How, Order, Phone, Step};

/// A family of worlds.
#[derive(Debug, Clone)]
pub(super) struct Scene {
    pub(super) name: &'static str,
    /// The rules that it is made for; others may decide in it as well.
    pub(super) rules: &'static [u8],
    /// Ben is on Anna's crew, and both phones hold the visit. Otherwise only Anna's does.
    pub(super) crew: bool,
    /// Anna also has a second visit.
    pub(super) second: bool,
    /// How far Anna's wall clock runs ahead, which the phone has measured.
    pub(super) ahead_ms: i64,
    /// Half-width of what the phones know about time.
    pub(super) uncertainty_ms: u32,
    /// What has happened already when the worlds begin.
    pub(super) opening: Vec<Step>,
    pub(super) alphabet: Vec<Step>,
    /// Both technicians may do the same, and it makes no difference who leads.
    pub(super) mirrored: bool,
    /// Most actions, and most exchanges before the last ones.
    pub(super) actions: usize,
    pub(super) exchanges: usize,
}

impl Scene {
    pub(super) fn has(&self, step: Step) -> bool {
        self.alphabet.contains(&step)
    }

    /// The phones that are in it.
    pub(super) fn phones(&self) -> Vec<Phone> {
        let uses_new = |step: &Step| matches!(step, Step::Does(Phone::AnnaNew, _) | Step::Exchange(Phone::AnnaNew, _));
        Phone::ALL.into_iter().filter(|phone| *phone != Phone::AnnaNew || self.alphabet.iter().any(uses_new)).collect()
    }
}

/// Most actions in a world: what technicians do, what the office orders, and what clocks do.
pub(super) const ACTIONS_MAX: usize = 6;
/// Most exchanges between them, of all phones together. In the end every phone connects, in every order.
pub(super) const EXCHANGES_MAX: usize = 2;

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
        opening: Vec::new(),
        alphabet,
        mirrored: false,
        actions: ACTIONS_MAX,
        exchanges: EXCHANGES_MAX,
    }
}

/// All of them, each at its full length.
#[allow(clippy::enum_glob_use, clippy::too_many_lines, reason = "a table of letters")]
pub(super) fn all() -> Vec<Scene> {
    use Act::*;
    use Order::*;
    const NEW: Step = Step::Exchange(Phone::AnnaNew, How::Whole);
    vec![
        scene(
            "The office cancels",
            &[1, 2, 17],
            vec![anna(Arrive), anna(Complete), anna(CannotComplete), office(Cancel), office(Reinstate), ANNA],
        ),
        scene(
            "The office cancels, and nobody arrives",
            &[1],
            vec![anna(Accept), anna(Travel), anna(Labour), office(Cancel), office(Reinstate), ANNA],
        ),
        Scene {
            opening: vec![anna(Start), ANNA],
            ..scene(
                "Work is stopped",
                &[2, 17],
                vec![
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
            ..scene(
                "The clocks cannot tell",
                &[2, 6],
                vec![anna(Arrive), anna(Complete), office(Cancel), office(AssignBen), ANNA],
            )
        },
        scene(
            "From Anna to Ben",
            &[3],
            vec![anna(Arrive), anna(Complete), ben(Arrive), office(AssignBen), office(AssignAnna), ANNA, BEN],
        ),
        scene(
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
            ],
        ),
        scene(
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
                ANNA,
                BEN,
            ],
        ),
        Scene {
            crew: true,
            ..scene(
                "A crew of two",
                &[5],
                vec![anna(Arrive), anna(Complete), ben(Arrive), ben(CompleteUnasked), ben(Labour), ANNA, BEN],
            )
        },
        Scene {
            crew: true,
            ..scene(
                "A crew of two writes the report",
                &[5],
                vec![anna(Answer), anna(Note), ben(Answer), ben(Note), ANNA, BEN],
            )
        },
        Scene {
            crew: true,
            ..scene(
                "The lead changes",
                &[3, 5],
                vec![anna(Arrive), anna(Complete), ben(Arrive), office(BenLeads), ANNA, BEN],
            )
        },
        Scene {
            crew: true,
            ..scene(
                "The lead changes, and changes back",
                &[3, 5],
                vec![anna(Arrive), ben(CompleteUnasked), office(BenLeads), office(AssignAnna), ANNA, BEN],
            )
        },
        Scene {
            ahead_ms: 3 * HOUR,
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
        Scene {
            crew: true,
            mirrored: true,
            ..scene("Parts", &[7], vec![anna(Filter), anna(Pump), ben(Filter), ben(Pump), ANNA, BEN])
        },
        scene(
            "A photo under way",
            &[8, 14],
            vec![anna(Photo), anna(Arrive), anna(Complete), office(Cancel), office(AssignBen), ANNA],
        ),
        scene(
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
                NEW,
            ],
        ),
        scene(
            "Anna has a new phone",
            &[10],
            vec![anna(Arrive), anna(Complete), new_anna(Arrive), new_anna(Complete), office(Cancel), ANNA, NEW],
        ),
        scene(
            "Anna's app is newer",
            &[11],
            vec![anna(Newer), anna(Arrive), anna(Complete), office(Cancel), office(AssignBen), ANNA],
        ),
        scene(
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
        ),
        Scene {
            opening: vec![anna(Travel), ANNA],
            ..scene(
                "The window is moved on the way",
                &[13],
                vec![
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
        scene(
            "The window is moved",
            &[13],
            vec![anna(Travel), anna(Arrive), office(MoveConfirmed), office(Move), office(Confirmed), ANNA],
        ),
        scene(
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
        ),
        Scene {
            second: true,
            ..scene(
                "A damaged entry",
                &[15],
                vec![anna(Poison), anna(Arrive), anna(Complete), anna(ArriveElsewhere), office(Cancel), ANNA],
            )
        },
        Scene {
            second: true,
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
        scene(
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
        ),
    ]
}

/// Both technicians on the visit, for the phone that they share.
pub(super) fn shared_phone() -> Scene {
    Scene { crew: true, ..scene("One phone for two", &[10], Vec::new()) }
}
