//! The dashboards as Grafana reads them: panels, their queries, and what takes the place of variables and macros.

use serde_json::Value;

/// One file of `grafana/dashboards`.
pub(crate) struct Dashboard {
    pub(crate) file: &'static str,
    pub(crate) text: &'static str,
    pub(crate) json: Value,
}

/// One query, with its place for whoever reads why a test failed.
pub(crate) struct Query {
    pub(crate) place: String,
    /// As it is written, with variables and macros.
    pub(crate) text: String,
    pub(crate) language: Language,
    /// What the curve is called, with `{{label}}`.
    pub(crate) legend: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Language {
    PromQl,
    Sql,
}

pub(crate) fn dashboards() -> [Dashboard; 3] {
    [
        (
            "overview.json",
            include_str!("../../grafana/dashboards/overview.json"),
        ),
        (
            "subscription.json",
            include_str!("../../grafana/dashboards/subscription.json"),
        ),
        (
            "database.json",
            include_str!("../../grafana/dashboards/database.json"),
        ),
    ]
    .map(|(file, text)| Dashboard {
        file,
        text,
        json: serde_json::from_str(text).expect(file),
    })
}

impl Dashboard {
    /// All panels, rows and what is folded up in them too.
    pub(crate) fn panels_and_rows(&self) -> Vec<&Value> {
        let panels = list(&self.json["panels"]);
        panels
            .iter()
            .flat_map(|panel| std::iter::once(panel).chain(list(&panel["panels"])))
            .collect()
    }

    /// All panels that show something.
    pub(crate) fn panels(&self) -> Vec<&Value> {
        let mut panels = self.panels_and_rows();
        panels.retain(|panel| panel["type"] != "row");
        panels
    }

    /// The queries of all panels.
    pub(crate) fn queries(&self) -> Vec<Query> {
        let of_panel = |panel: &Value| {
            let queries = list(&panel["targets"])
                .iter()
                .map(|target| self.query(panel, target));
            queries.collect::<Vec<_>>()
        };
        self.panels().into_iter().flat_map(of_panel).collect()
    }

    /// The variables at the top.
    pub(crate) fn variables(&self) -> &[Value] {
        list(&self.json["templating"]["list"])
    }

    fn query(&self, panel: &Value, target: &Value) -> Query {
        let place = format!(
            "{}, {}, {}",
            self.file,
            text(&panel["title"]),
            text(&target["refId"])
        );
        let language = if target["datasource"]["type"] == "prometheus" {
            Language::PromQl
        } else {
            Language::Sql
        };
        let field = match language {
            Language::PromQl => "expr",
            Language::Sql => "rawSql",
        };
        Query {
            place,
            text: text(&target[field]).to_owned(),
            language,
            legend: text(&target["legendFormat"]).to_owned(),
        }
    }
}

/// All queries of all dashboards in one language.
pub(crate) fn queries(language: Language) -> Vec<Query> {
    let all = dashboards().into_iter().flat_map(|board| board.queries());
    all.filter(|query| query.language == language).collect()
}

/// A query as Grafana sends it to Prometheus: variables by their values, and a window that holds a few scrapes.
pub(crate) fn filled_promql(query: &str, values: &[(&str, &str)], window: &str) -> String {
    let mut filled = query
        .replace("$__rate_interval", window)
        .replace("$__range", window);
    for (name, value) in values {
        filled = filled.replace(&format!("${name}"), value);
    }
    assert!(!filled.contains('$'), "{query}: what is left is {filled}");
    filled
}

/// A query as Grafana sends it to Postgres, for a time range that is given as two timestamps.
pub(crate) fn filled_sql(query: &str, values: &[(&str, &str)], range: [&str; 2]) -> String {
    let mut filled = query.to_owned();
    for (name, value) in values {
        let literal = format!("'{}'", value.replace('\'', "''"));
        filled = filled.replace(&format!("${{{name}:sqlstring}}"), &literal);
    }
    filled = macros(&filled, "$__timeFilter(", |column| {
        format!("{column} BETWEEN '{}' AND '{}'", range[0], range[1])
    });
    filled = macros(&filled, "$__timeGroupAlias(", |arguments| {
        let (column, interval) = arguments.split_once(',').unwrap();
        assert_eq!(interval.trim(), "$__interval");
        format!("floor(extract(epoch from {column})/60)*60 AS \"time\"")
    });
    assert!(
        !filled.contains("$__") && !filled.contains("${"),
        "{filled}"
    );
    filled
}

/// Puts something in the place of each call of a macro whose arguments hold no parentheses.
fn macros(text: &str, head: &str, put: impl Fn(&str) -> String) -> String {
    let mut pieces = text.split(head);
    let mut done = pieces.next().unwrap_or_default().to_owned();
    for piece in pieces {
        let (arguments, rest) = piece.split_once(')').unwrap();
        done.push_str(&put(arguments));
        done.push_str(rest);
    }
    done
}

pub(crate) fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

pub(crate) fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}
