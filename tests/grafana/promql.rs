//! Queries of Prometheus, held against the closed list of metrics: names, labels, what labels can say, and what may be done with each kind.

use std::collections::BTreeSet;

use posthaste::telemetry::{Kind, METRICS, Metric, Origin, Values};
use promql_parser::label::{MatchOp, Matcher};
use promql_parser::parser::{
    self, AggregateExpr, BinaryExpr, Call, Expr, LabelModifier, VectorSelector,
};
use promql_parser::util::{ExprVisitor, walk_expr};

/// What is wrong with a query; where nothing is, the labels that its series have.
pub(crate) fn checked(query: &str) -> Result<BTreeSet<String>, String> {
    let expr = parser::parse(query)?;
    labels(&expr, &Around::default())
}

/// The metrics that a query reads, by their names in [`METRICS`].
pub(crate) fn metrics(query: &str) -> BTreeSet<&'static str> {
    let is_of_a_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let words: BTreeSet<&str> = query.split(|c| !is_of_a_name(c)).collect();
    let is_read = |name: &&str| {
        let with = |suffix: &&str| words.contains(format!("{name}{suffix}").as_str());
        words.contains(name) || SUFFIXES.iter().any(with)
    };
    METRICS
        .iter()
        .map(|metric| metric.name)
        .filter(is_read)
        .collect()
}

/// The selectors in a query, without ranges and offsets, each as a query of its own.
pub(crate) fn selectors(query: &str) -> BTreeSet<String> {
    struct Collected(BTreeSet<String>);
    impl ExprVisitor for Collected {
        type Error = std::convert::Infallible;

        fn pre_visit(&mut self, expr: &Expr) -> Result<bool, Self::Error> {
            let selector = match expr {
                Expr::VectorSelector(selector) => Some(selector),
                Expr::MatrixSelector(matrix) => Some(&matrix.vs),
                _ => None,
            };
            self.0.extend(selector.map(|selector| {
                let at_once = VectorSelector {
                    offset: None,
                    ..selector.clone()
                };
                at_once.to_string()
            }));
            Ok(true)
        }
    }
    let mut collected = Collected(BTreeSet::new());
    let Ok(_) = walk_expr(&mut collected, &parser::parse(query).unwrap());
    collected.0
}

/// What stands around an expression.
#[derive(Clone, Copy, Default)]
struct Around {
    /// It is summed up, or one of several is picked: whose page a figure is on does not matter.
    aggregated: bool,
    /// The function that is applied to a range of it.
    function: Option<&'static str>,
}

fn labels(expr: &Expr, around: &Around) -> Result<BTreeSet<String>, String> {
    match expr {
        Expr::Aggregate(aggregate) => aggregated(aggregate),
        Expr::Call(call) => called(call, around),
        Expr::Binary(binary) => combined(binary, around),
        Expr::Unary(unary) => labels(&unary.expr, around),
        Expr::Paren(paren) => labels(&paren.expr, around),
        Expr::Subquery(subquery) => labels(&subquery.expr, around),
        Expr::VectorSelector(selector) => selected(selector, around, false),
        Expr::MatrixSelector(matrix) => selected(&matrix.vs, around, true),
        Expr::NumberLiteral(_) | Expr::StringLiteral(_) => Ok(BTreeSet::new()),
        Expr::Extension(_) => Err("an extension".into()),
    }
}

fn aggregated(aggregate: &AggregateExpr) -> Result<BTreeSet<String>, String> {
    let around = Around {
        aggregated: true,
        function: None,
    };
    let inner = labels(&aggregate.expr, &around)?;
    let picks = ["topk", "bottomk"].contains(&aggregate.op.to_string().as_str());
    match &aggregate.modifier {
        None if picks => Ok(inner),
        None => Ok(BTreeSet::new()),
        Some(LabelModifier::Include(by)) => {
            let by: BTreeSet<String> = by.labels.iter().cloned().collect();
            let strange: Vec<_> = by.difference(&inner).collect();
            if strange.is_empty() {
                return Ok(by);
            }
            Err(format!(
                "by {strange:?}, which {} does not have",
                aggregate.expr
            ))
        }
        Some(LabelModifier::Exclude(_)) => Err("`without` keeps labels that nobody named".into()),
    }
}

fn called(call: &Call, around: &Around) -> Result<BTreeSet<String>, String> {
    let around = Around {
        function: Some(call.func.name),
        ..*around
    };
    let mut all = BTreeSet::new();
    for argument in &call.args.args {
        all.extend(labels(argument, &around)?);
    }
    match call.func.name {
        "histogram_quantile" if !all.remove("le") => {
            Err("a quantile of what has no buckets".into())
        }
        "absent" | "vector" | "time" => Ok(BTreeSet::new()),
        _ => Ok(all),
    }
}

fn combined(binary: &BinaryExpr, around: &Around) -> Result<BTreeSet<String>, String> {
    let mut left = labels(&binary.lhs, around)?;
    let right = labels(&binary.rhs, around)?;
    if let Some(LabelModifier::Include(on)) =
        binary.modifier.as_ref().and_then(|m| m.matching.as_ref())
    {
        for label in &on.labels {
            if !left.contains(label) || !right.contains(label) {
                return Err(format!("on {label}, which one side does not have"));
            }
        }
    }
    // A number and a series give a series; of two series, only `or` gives those of the right side.
    if left.is_empty() || binary.op.to_string() == "or" {
        left.extend(right);
    }
    Ok(left)
}

fn selected(
    selector: &VectorSelector,
    around: &Around,
    is_range: bool,
) -> Result<BTreeSet<String>, String> {
    let name = selector
        .name
        .as_deref()
        .ok_or("a selector without a name")?;
    let (known, metric) = known(name)?;
    if let Some(metric) = metric {
        fits(metric, name, around, is_range)?;
    }
    for matcher in &selector.matchers.matchers {
        if !known.contains(&matcher.name) {
            return Err(format!("{name} has no label {}", matcher.name));
        }
        if let Some(metric) = metric {
            says(metric, matcher)?;
        }
    }
    Ok(known)
}

/// The labels of a series with this name, and the metric that it belongs to.
fn known(name: &str) -> Result<(BTreeSet<String>, Option<&'static Metric>), String> {
    let owned = |labels: &[&str]| labels.iter().map(|&label| label.to_owned()).collect();
    match name {
        "up" => return Ok((owned(&OF_TARGETS), None)),
        "ALERTS" => return Ok((owned(&["alertname", "alertstate", "severity", "job"]), None)),
        _ => {}
    }
    let is_own = |metric: &&Metric| {
        let suffix = name.strip_prefix(metric.name);
        suffix.is_some_and(|suffix| match metric.kind {
            Kind::Histogram => SUFFIXES.contains(&suffix),
            _ => suffix.is_empty(),
        })
    };
    let metric = METRICS
        .iter()
        .find(is_own)
        .ok_or_else(|| format!("there is no metric {name}"))?;
    let mut labels: BTreeSet<String> = owned(&OF_TARGETS);
    labels.extend(metric.labels.iter().map(|label| label.name.to_owned()));
    if name.ends_with("_bucket") {
        labels.insert("le".into());
    }
    Ok((labels, Some(metric)))
}

/// Counters are looked at by their growth, gauges by their value; whose page a figure from the database is on must not matter.
fn fits(metric: &Metric, name: &str, around: &Around, is_range: bool) -> Result<(), String> {
    let grows = around
        .function
        .is_some_and(|function| ["rate", "increase"].contains(&function));
    let counts = metric.kind != Kind::Gauge;
    if is_range && counts != grows {
        return Err(format!(
            "{:?} of {name}, a {}",
            around.function,
            metric.kind.word()
        ));
    }
    if metric.origin == Origin::Database && !around.aggregated {
        return Err(format!("{name} is on the page of any one worker: max(...)"));
    }
    Ok(())
}

fn says(metric: &Metric, matcher: &Matcher) -> Result<(), String> {
    let label = metric
        .labels
        .iter()
        .find(|label| label.name == matcher.name);
    let Some(Values::Closed(words)) = label.map(|label| label.values) else {
        return Ok(());
    };
    let mut asked = match matcher.op {
        MatchOp::Equal | MatchOp::NotEqual => vec![matcher.value.as_str()],
        MatchOp::Re(_) | MatchOp::NotRe(_) => matcher.value.split('|').collect(),
    };
    asked.retain(|word| !words.contains(word));
    if asked.is_empty() {
        return Ok(());
    }
    Err(format!(
        "{} never says {asked:?} of {}",
        metric.name, matcher.name
    ))
}

const OF_TARGETS: [&str; 2] = ["job", "instance"];
const SUFFIXES: [&str; 3] = ["_bucket", "_sum", "_count"];
