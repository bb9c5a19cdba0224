//! Rule 10 on the phone's own file: Anna and Ben share one phone. Whoever logs in finds their own unsent work and nobody
//! else's, and in the end everything is with the server once, under the name of who did it.

use super::stage::{Stage, at, service_error};
use super::step::{Who, id};
use crm_dispatch_server::service::push::FeedAnswer;
use crm_dispatch_server::service::{PhoneSession, Service};
use rand::SeedableRng as _;
use rand::rngs::SmallRng;
use std::collections::{BTreeMap, BTreeSet};
use sync_core::document::VisitDoc;
use sync_core::domain::BootId;
use sync_core::domain::fact::FactKind;
use sync_core::protocol::{Hello, Push};
use sync_core::store::{DeviceNow, FeedBatch, NewEdit, OpenOptions, PageLimits, Protection, Store};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Word {
    LogIn(Who),
    LogOut,
    /// Who is logged in books labour, if the visit is on the phone.
    Work,
    Exchange,
}

const ALPHABET: [Word; 5] = [Word::LogIn(Who::Anna), Word::LogIn(Who::Ben), Word::LogOut, Word::Work, Word::Exchange];

/// Plays every word of `steps` steps, each on a file of its own; how many there are.
pub(super) fn check(steps: usize) -> Result<u64, String> {
    let mut played = 0;
    let mut words = vec![vec![Word::LogIn(Who::Anna), Word::Exchange]];
    for _ in 0..steps {
        words = words.iter().flat_map(|word| longer(word)).collect();
    }
    for word in words {
        play(&word).map_err(|problem| format!("\"One phone for two\": {problem}\n  {word:?}"))?;
        played += 1;
    }
    Ok(played)
}

/// The word with each step that would do something. A shorter word is the beginning of a longer one.
fn longer(word: &[Word]) -> Vec<Vec<Word>> {
    let user = word.iter().rev().find_map(|step| match step {
        Word::LogIn(who) => Some(Some(*who)),
        Word::LogOut => Some(None),
        _ => None,
    });
    let user = user.flatten();
    let useful = |step: &Word| match step {
        Word::LogIn(who) => user != Some(*who),
        Word::LogOut | Word::Work => user.is_some(),
        Word::Exchange => user.is_some() && word.last() != Some(&Word::Exchange),
    };
    ALPHABET.iter().filter(|step| useful(step)).map(|step| [word, &[*step]].concat()).collect()
}

struct Shared<'a> {
    stage: &'a Stage,
    service: &'a Service,
    store: Store,
    rng: SmallRng,
    minute: i64,
    user: Option<Who>,
    /// Facts by who stated them; `false` while they are unsent.
    facts: BTreeMap<String, (Who, bool)>,
}

fn play(word: &[Word]) -> Result<(), String> {
    let scene = super::scene::shared_phone();
    let (stage, _) = Stage::new(&scene)?;
    let memory = std::path::Path::new("/dev/shm");
    let folder = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
    let folder = folder.map_err(|error| error.to_string())?;
    let mut rng = SmallRng::seed_from_u64(7);
    let options = OpenOptions { app: "small worlds".to_owned(), now: at(0), protection: Protection::Unencrypted };
    let opened =
        Store::open(&folder.path().join("visits.db"), &options, &mut rng).map_err(|error| error.to_string())?;
    let mut phone = Shared {
        service: stage.service(),
        stage: &stage,
        store: opened.store,
        rng,
        minute: 9 * 60,
        user: None,
        facts: BTreeMap::new(),
    };
    for step in word {
        phone.step(*step)?;
        phone.keeps_secrets()?;
    }
    for who in Who::ALL {
        phone.step(Word::LogIn(who))?;
        for _ in 0..3 {
            phone.step(Word::Exchange)?;
        }
        phone.keeps_secrets()?;
    }
    if !phone.store.holds_nothing_unsent().map_err(|error| error.to_string())? {
        return Err("everybody was online, and there is unsent work".to_owned());
    }
    let all = stage.store.all_dispatches(&stage.tenant);
    let (_, saved, _) = all.first().ok_or("the visit is gone")?;
    let view = VisitDoc::load(saved).map_err(|error| error.to_string())?.view();
    let found: BTreeSet<(String, String)> =
        view.facts.values().map(|fact| (fact.id.to_string(), fact.technician.to_string())).collect();
    let expected = phone.facts.iter().map(|(fact, (who, _))| (fact.clone(), who.id().to_owned())).collect();
    if found != expected {
        return Err(format!("the server has {found:?}, and there was done {expected:?}"));
    }
    let ruled = view.facts.keys().filter(|fact| view.rulings.contains_key(*fact)).count();
    if ruled != found.len() {
        return Err(format!("{ruled} of {} facts are ruled on", found.len()));
    }
    Ok(())
}

impl Shared<'_> {
    fn step(&mut self, step: Word) -> Result<(), String> {
        self.minute += 1;
        let tenant = self.stage.tenant.clone();
        match step {
            Word::LogIn(who) => {
                self.store.bind_user(&tenant, &id(who.id()), &mut self.rng).map_err(|error| error.to_string())?;
                self.user = Some(who);
            }
            Word::LogOut => {
                self.store.unbind_user(&mut self.rng).map_err(|error| error.to_string())?;
                self.user = None;
            }
            Word::Work => {
                let Some(who) = self.user else { return Ok(()) };
                let now = DeviceNow {
                    wall: at(self.minute * 60_000),
                    monotonic_ms: self.minute.unsigned_abs() * 60_000,
                    boot: id::<BootId>("boot-1"),
                };
                let work = NewEdit::Fact(FactKind::TimeEntry { category: "labour".to_owned(), minutes: 15 });
                // A phone that has not been online since the login shows no visit to work on.
                if let Ok(acted) = self.store.act(&self.stage.visit, work, &now, None, &mut self.rng) {
                    let fact = acted.fact.ok_or("labour is a fact")?;
                    self.facts.insert(fact.to_string(), (who, false));
                }
            }
            Word::Exchange => self.exchange()?,
        }
        Ok(())
    }

    /// What the present user's outbox holds, and what is sealed, is everybody's unsent work, each under the right name.
    fn keeps_secrets(&self) -> Result<(), String> {
        let unsent = |who: Who| self.facts.values().filter(|(by, sent)| *by == who && !sent).count();
        let sealed = self.store.sealed().map_err(|error| error.to_string())?;
        for who in Who::ALL {
            let of = |(_, technician, count): &(_, sync_core::domain::TechnicianId, u32)| {
                if technician.as_ref() == who.id() { *count as usize } else { 0 }
            };
            let found = if self.user == Some(who) {
                self.store.outbox_mark().map_err(|error| error.to_string())?.pending as usize
            } else {
                sealed.iter().map(of).sum()
            };
            if found != unsent(who) {
                return Err(format!("{who} has {} unsent actions, and the phone keeps {found}", unsent(who)));
            }
        }
        Ok(())
    }

    fn exchange(&mut self) -> Result<(), String> {
        let Some(who) = self.user else { return Ok(()) };
        let failed = |error: sync_core::store::StoreError| error.to_string();
        let state = self.store.sync_state().map_err(failed)?;
        let session = PhoneSession {
            tenant: self.stage.tenant.clone(),
            user: id(who.id()),
            technician: id(who.id()),
            device: state.device.clone(),
        };
        let now = at(self.minute * 60_000);
        let hello = Hello {
            device: state.device,
            app: state.app,
            generation: state.generation,
            cursor: state.cursor,
            outbox: state.outbox,
            now,
        };
        let welcome = self.stage.block_on(self.service.hello(&session, &hello)).map_err(service_error)?;
        self.store.server_identity(welcome.generation, welcome.head, now).map_err(failed)?;
        let after = self.store.sync_state().map_err(failed)?.cursor;
        let page = self.stage.block_on(self.service.feed_page(&session, after, 100)).map_err(service_error)?;
        let FeedAnswer::Items { items, to, digest, .. } = page else { return Err("the feed is too old".to_owned()) };
        let batch = FeedBatch { from: after, to, reset: false, more: false, digest: Some(digest), items };
        self.store.apply_batch(batch, now, &mut self.rng).map_err(failed)?;
        let needs = self.store.sync_state().map_err(failed)?.needs_fetch;
        if !needs.is_empty() {
            let items = self.stage.block_on(self.service.fetch(&session, &needs)).map_err(service_error)?;
            let batch = FeedBatch { from: to, to, reset: false, more: false, digest: None, items };
            self.store.apply_batch(batch, now, &mut self.rng).map_err(failed)?;
        }
        let page = self.store.outbox_page(&PageLimits::default()).map_err(failed)?;
        if page.lanes.is_empty() {
            return Ok(());
        }
        let push = Push {
            id: 1,
            lanes: page.lanes.iter().map(|sent| sent.lane.clone()).collect(),
            outbox: self.store.outbox_mark().map_err(failed)?,
        };
        let outcome = self.stage.block_on(self.service.push(&session, &push)).map_err(service_error)?;
        if let Some(refusal) = outcome.ack.lanes.iter().find_map(|lane| lane.refusal.as_ref()) {
            return Err(format!("{who}'s work is refused: {refusal:?}"));
        }
        self.store.push_acknowledged(&page.lanes, &outcome.ack.lanes, None, now, &mut self.rng).map_err(failed)?;
        for (by, sent) in self.facts.values_mut() {
            *sent |= *by == who;
        }
        Ok(())
    }
}
