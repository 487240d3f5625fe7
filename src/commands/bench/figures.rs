//! Medians, ranges and percentiles, and how they are written.

/// Median and range of what the rounds gave.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Figure {
    pub(super) median: f64,
    pub(super) low: f64,
    pub(super) high: f64,
}

impl Figure {
    /// Of these values; none where there are none.
    pub(super) fn of(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut values: Vec<f64> = values.into_iter().collect();
        values.sort_by(f64::total_cmp);
        let (low, high) = (*values.first()?, *values.last()?);
        let middle = values.len() / 2;
        let median = if values.len().is_multiple_of(2) {
            f64::midpoint(values[middle - 1], values[middle])
        } else {
            values[middle]
        };
        Some(Self { median, low, high })
    }

    /// For a table: the median, and the range in brackets where it says more.
    pub(super) fn text(self, decimals: usize) -> String {
        let [median, low, high] = [self.median, self.low, self.high].map(|n| grouped(n, decimals));
        if low == high {
            median
        } else {
            format!("{median} ({low} to {high})")
        }
    }
}

/// For a table; a dash where nothing is known.
pub(super) fn text(figure: Option<Figure>, decimals: usize) -> String {
    figure.map_or_else(|| "-".to_owned(), |figure| figure.text(decimals))
}

/// For a table: bytes in MiB; a dash where nothing is known.
pub(super) fn mebibytes(bytes: Option<u64>) -> String {
    bytes.map_or_else(
        || "-".to_owned(),
        |bytes| grouped(float(bytes) / 1_048_576.0, 0),
    )
}

/// The value that this share of the sorted values does not exceed.
pub(super) fn percentile(sorted: &[f64], share: f64) -> Option<f64> {
    let rank = (float(sorted.len() as u64) * share).ceil().max(1.0);
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a small rank"
    )]
    let place = rank as usize - 1;
    sorted
        .get(place.min(sorted.len().saturating_sub(1)))
        .copied()
}

/// With commas between thousands.
pub(super) fn grouped(number: f64, decimals: usize) -> String {
    let text = format!("{:.decimals$}", number.abs());
    let (whole, rest) = text.split_at(text.find('.').unwrap_or(text.len()));
    let mut grouped = String::new();
    for (place, digit) in whole.chars().enumerate() {
        if place > 0 && (whole.len() - place).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    let sign = if number < 0.0 { "-" } else { "" };
    format!("{sign}{grouped}{rest}")
}

#[expect(
    clippy::cast_precision_loss,
    reason = "counts of a benchmark are far below 2^52"
)]
pub(super) fn float(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_of_an_even_number_lies_between() {
        let figure = Figure {
            median: 2.5,
            low: 1.0,
            high: 4.0,
        };
        assert_eq!(Figure::of([4.0, 1.0, 3.0, 2.0]), Some(figure));
        assert_eq!(Figure::of([]), None);
    }

    #[test]
    fn percentiles_are_values_that_occurred() {
        let sorted: Vec<f64> = (1..=100).map(f64::from).collect();
        assert_eq!(percentile(&sorted, 0.5), Some(50.0));
        assert_eq!(percentile(&sorted, 0.99), Some(99.0));
        assert_eq!(percentile(&sorted, 1.0), Some(100.0));
        assert_eq!(percentile(&[7.0], 0.01), Some(7.0));
    }

    #[test]
    fn thousands_are_set_apart() {
        assert_eq!(grouped(1_234_567.89, 1), "1,234,567.9");
        assert_eq!(grouped(-123.0, 0), "-123");
    }
}
