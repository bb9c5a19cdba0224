//! A measurement beside its budget, as a table and as JSON.

use crate::tables::table;
use serde::Serialize;

/// Which side of the budget is good. Budgets are upper bounds, but for rates.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// Within the budget.
    Met,
    /// Over the budget.
    Missed,
    /// Measured for its own sake.
    Info,
    /// The machine does not allow it.
    Capped,
}

/// One figure.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Row {
    /// The scenario's name.
    pub scenario: String,
    /// What exactly was measured.
    pub figure: String,
    /// The value.
    pub value: f64,
    /// Its unit.
    pub unit: &'static str,
    /// At most this, if a budget exists; of a rate, at least this.
    pub budget: Option<f64>,
    /// The best published figure of a peer, for orientation.
    pub peer: &'static str,
    /// Value against budget.
    pub verdict: Verdict,
    /// What the value is made of, or anything else to know.
    pub detail: String,
}

impl Row {
    /// A figure without a budget.
    #[must_use]
    pub fn info(scenario: &str, figure: impl Into<String>, value: f64, unit: &'static str) -> Self {
        Self {
            scenario: scenario.to_owned(),
            figure: figure.into(),
            value,
            unit,
            budget: None,
            peer: "",
            verdict: Verdict::Info,
            detail: String::new(),
        }
    }

    /// Holds it against a budget.
    #[must_use]
    pub fn budget(mut self, at_most: f64, peer: &'static str) -> Self {
        self.verdict = if self.value <= at_most { Verdict::Met } else { Verdict::Missed };
        self.budget = Some(at_most);
        self.peer = peer;
        self
    }

    /// Holds a rate against the least it shall be.
    #[must_use]
    pub fn at_least(mut self, floor: f64, peer: &'static str) -> Self {
        self.verdict = if self.value >= floor { Verdict::Met } else { Verdict::Missed };
        self.budget = Some(floor);
        self.peer = peer;
        self
    }

    /// Says what it is made of.
    #[must_use]
    pub fn detail(mut self, detail: impl Into<String>) -> Self {
        self.detail = detail.into();
        self
    }

    /// The machine's limit stood in the way.
    #[must_use]
    pub fn capped(mut self) -> Self {
        self.verdict = Verdict::Capped;
        self
    }
}

/// All of them for people.
#[must_use]
pub fn render(rows: &[Row]) -> String {
    let cells = rows
        .iter()
        .map(|row| {
            let verdict = match row.verdict {
                Verdict::Met => "met",
                Verdict::Missed => "MISSED",
                Verdict::Info => "",
                Verdict::Capped => "capped",
            };
            vec![
                row.scenario.clone(),
                row.figure.clone(),
                quantity(row.value, row.unit),
                row.budget.map(|budget| quantity(budget, row.unit)).unwrap_or_default(),
                verdict.to_owned(),
                row.peer.to_owned(),
                row.detail.clone(),
            ]
        })
        .collect();
    table(&["Scenario", "Figure", "Measured", "Budget", "Verdict", "Best published peer", "Parts"], &[2, 3], cells)
}

/// All of them for machines, one JSON object a line.
#[must_use]
pub fn json_lines(rows: &[Row]) -> String {
    rows.iter().filter_map(|row| serde_json::to_string(row).ok()).map(|line| line + "\n").collect()
}

fn quantity(value: f64, unit: &str) -> String {
    if value == 0.0 || value >= 1_000.0 || value.fract() == 0.0 {
        format!("{value:.0} {unit}")
    } else if value >= 10.0 {
        format!("{value:.1} {unit}")
    } else {
        format!("{value:.3} {unit}")
    }
}

/// The middle one; 0 of nothing.
#[must_use]
pub(super) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missed_budget_stands_out_and_keeps_its_parts() {
        let rows = [
            Row::info("bootstrap", "500 visits", 71.0, "ms").budget(50.0, "Syncular 71 ms").detail("SQLite 40 ms"),
            Row::info("reconnect", "500 visits", 212.0, "B").budget(300.0, "Syncular 983 B"),
        ];
        let text = render(&rows);
        assert!(text.contains("MISSED"));
        assert!(text.contains("SQLite 40 ms"));
        assert_eq!(text.matches(" met ").count(), 1);
        assert_eq!(json_lines(&rows).lines().count(), 2);
        assert!(json_lines(&rows).contains("\"verdict\":\"missed\""));
    }

    #[test]
    fn the_median_is_the_middle_one() {
        assert!((median(vec![9.0, 1.0, 5.0]) - 5.0).abs() < f64::EPSILON);
        assert!(median(Vec::new()).abs() < f64::EPSILON);
    }
}
