//! What `deploy/` names exists: settings, figures, sections of the runbook.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a story that is not as told shall fail")]

use crm_dispatch_server::config::{Config, DEFAULT_TOML};
use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn files(folder: &Path, wanted: &dyn Fn(&Path) -> bool) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
        if entry.is_dir() {
            found.extend(files(&entry, wanted));
        } else if wanted(&entry) {
            found.push(entry);
        }
    }
    found.sort();
    found
}

/// Every file of `deploy/`, with its text.
fn deployed() -> Vec<(PathBuf, String)> {
    let found: Vec<_> = files(&root().join("deploy"), &|_| true)
        .into_iter()
        .map(|path| {
            let text = std::fs::read_to_string(&path).unwrap();
            (path, text)
        })
        .collect();
    assert!(found.len() >= 8, "{found:?}");
    found
}

/// The words of a text that consist of these characters and begin so.
fn words<'a>(text: &'a str, begin: &'a str, of: fn(char) -> bool) -> impl Iterator<Item = &'a str> {
    text.match_indices(begin).filter_map(move |(at, _)| {
        let before = text[..at].chars().next_back();
        let end = text[at..].find(|c| !of(c)).map_or(text.len(), |length| at + length);
        (!before.is_some_and(|before| of(before) || before == '/'))
            .then(|| text[at..end].trim_end_matches(['.', '_', ':']))
    })
}

/// Every setting's name, also of those that are commented out because they have no default: `server.port`.
fn settings() -> BTreeSet<String> {
    let mut section = String::new();
    let mut settings = BTreeSet::new();
    for line in DEFAULT_TOML.lines() {
        if let Some(name) = line.strip_prefix('[') {
            section = name.trim_end_matches(']').to_owned();
        } else if let Some((key, _)) = line.trim_start_matches("# ").split_once(" = ")
            && key.chars().all(|c| c.is_ascii_lowercase() || c == '_')
        {
            settings.insert(format!("{section}.{key}"));
        }
    }
    settings
}

#[test]
fn every_setting_that_is_named_exists() {
    let known = settings();
    assert!(known.contains("server.port") && known.contains("auth.previous_secret"), "{known:?}");
    let mut named = 0;
    for (path, text) in deployed() {
        let variables = words(&text, "CRM_DISPATCH__", |c| c.is_ascii_uppercase() || c == '_');
        for variable in variables {
            let key = variable.trim_start_matches("CRM_DISPATCH__").to_lowercase().replace("__", ".");
            assert!(known.contains(&key), "{} names {variable}, which is no setting", path.display());
            named += 1;
        }
        if path.extension().is_none_or(|extension| extension != "md") {
            continue;
        }
        for section in ["server.", "admin.", "database.", "auth.", "sync.", "kafka.", "log."] {
            for key in words(&text, section, |c| c.is_ascii_lowercase() || c == '_' || c == '.') {
                // A sentence may end with one of these words.
                assert!(
                    !key.contains('.') || known.contains(key),
                    "{} names {key}, which is no setting",
                    path.display()
                );
                named += 1;
            }
        }
    }
    assert!(named >= 20, "only {named} settings were found: the search is broken");
}

/// The file and the example of an environment, with real secrets in place of the placeholders, are a configuration that starts.
#[test]
fn the_configuration_is_sound() {
    let environment: HashMap<_, _> = std::fs::read_to_string(root().join("deploy/env.example"))
        .unwrap()
        .lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| line.split_once('='))
        .filter(|(name, _)| name.starts_with("CRM_DISPATCH__"))
        .map(|(name, value)| (name.to_owned(), value.replace("change-me", "0123456789abcdef")))
        .collect();
    let config = Config::load(Some(&root().join("deploy/crm-dispatch.toml")), environment).unwrap();
    assert!(config.database.parse().unwrap().to_string().ends_with("/chiroerp_crm_dispatch"));
    let grace = std::fs::read_to_string(root().join("deploy/compose.yaml")).unwrap();
    let grace: u64 = grace.split_once("stop_grace_period: ").unwrap().1.split_once('s').unwrap().0.parse().unwrap();
    let drain = config.server.drain_notice() + config.server.drain_timeout();
    assert!(grace > drain.as_secs(), "a node is killed after {grace} s, and drains for up to {drain:?}");
    assert!(config.admin.address().is_some_and(|address| address.port() == 9406));
}

#[test]
fn every_figure_in_the_rules_is_counted_somewhere() {
    let sources: String = files(&root().join("server/src"), &|path| path.extension().is_some_and(|end| end == "rs"))
        .iter()
        .map(|path| std::fs::read_to_string(path).unwrap())
        .collect();
    let mut named = 0;
    for (path, text) in deployed() {
        for figure in words(&text, "crm_dispatch_", |c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_') {
            let figure =
                ["_bucket", "_count", "_sum"].iter().find_map(|end| figure.strip_suffix(end)).unwrap_or(figure);
            assert!(
                sources.contains(&format!("\"{figure}\"")),
                "{} names {figure}, which nobody counts",
                path.display()
            );
            named += 1;
        }
    }
    assert!(named >= 20, "only {named} figures were found: the search is broken");
}

#[test]
fn every_alert_names_a_section_of_the_runbook() {
    let runbook = std::fs::read_to_string(root().join("deploy/RUNBOOK.md")).unwrap();
    let rules = std::fs::read_to_string(root().join("deploy/prometheus/rules.yml")).unwrap();
    let (alerts, named) = (rules.matches("- alert: ").count(), rules.matches("runbook: \"RUNBOOK.md: ").count());
    assert!(alerts > 10);
    assert_eq!(alerts, named, "each alert says what to read");
    for section in rules.split("RUNBOOK.md: ").skip(1).map(|rest| rest.split('"').next().unwrap()) {
        assert!(runbook.contains(&format!("\n## {section}\n")), "the runbook has no section {section:?}");
    }
}
