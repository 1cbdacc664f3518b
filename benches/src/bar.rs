//! What a figure has to keep to.

use crate::table::{Row, Unit};

#[derive(Debug, Clone, Copy)]
pub(crate) enum Bar {
    /// The median is at most this.
    AtMost(f64),
    /// The median is at most (a speed: at least) so many times dockerd's.
    Docker(f64),
    /// The same for what 99 of 100 are no worse than.
    DockerWorst(f64),
    /// The median is at most (a speed: at least) so many times the floor's.
    Floor(f64),
}

impl Bar {
    /// The bar, and whether it is kept.
    pub(crate) fn judge(
        self,
        unit: Unit,
        own: Option<&Row>,
        docker: Option<&Row>,
        floor: Option<&Row>,
    ) -> String {
        let sign = if unit.more_is_better() { '≥' } else { '≤' };
        let worst = |row: &Row| row.worst(unit);
        let (text, limit, own) = match self {
            Self::AtMost(limit) => {
                (format!("≤ {}", unit.text(limit)), Some(limit), own.map(Row::median))
            }
            Self::Docker(share) => (
                format!("{sign} {share:.2} × dockerd"),
                docker.map(|row| row.median() * share),
                own.map(Row::median),
            ),
            Self::DockerWorst(share) => (
                format!("p99 {sign} {share:.2} × dockerd"),
                docker.map(|row| worst(row) * share),
                own.map(worst),
            ),
            Self::Floor(share) => (
                format!("{sign} {share:.2} × floor"),
                floor.map(|row| row.median() * share),
                own.map(Row::median),
            ),
        };
        let verdict = match (own, limit) {
            (Some(own), Some(limit)) if unit.more_is_better() && own >= limit => "met",
            (Some(own), Some(limit)) if !unit.more_is_better() && own <= limit => "met",
            (Some(_), Some(_)) => "NOT met",
            _ => "nothing to compare with",
        };
        format!("{text}: {verdict}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(figure: f64) -> Row {
        let mut row = Row::default();
        row.push_figure(figure);
        row
    }

    #[test]
    fn a_time_must_stay_below_and_a_speed_above() {
        let judge =
            |unit, own| Bar::Docker(0.5).judge(unit, Some(&row(own)), Some(&row(10.0)), None);
        assert_eq!(judge(Unit::Milliseconds, 5.0), "≤ 0.50 × dockerd: met");
        assert_eq!(judge(Unit::Milliseconds, 5.1), "≤ 0.50 × dockerd: NOT met");
        assert_eq!(judge(Unit::Speed, 5.1), "≥ 0.50 × dockerd: met");
        assert_eq!(judge(Unit::Speed, 4.9), "≥ 0.50 × dockerd: NOT met");
    }

    #[test]
    fn nothing_is_met_by_what_was_not_measured() {
        let judged = Bar::Docker(2.0).judge(Unit::Milliseconds, Some(&row(1.0)), None, None);
        assert!(judged.ends_with("nothing to compare with"), "{judged}");
        let judged = Bar::AtMost(2.0).judge(Unit::Milliseconds, Some(&Row::default()), None, None);
        assert!(judged.ends_with("NOT met"), "{judged}");
    }
}
