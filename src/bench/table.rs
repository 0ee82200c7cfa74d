//! Reports as Markdown, JSON or CSV.

use super::{Report, Row};
use crate::{Error, Result};
use serde::Serialize;

/// What has a row for each case.
pub trait Table: Serialize {
    /// What was measured, on what.
    fn title(&self) -> String;
    /// Names of the columns.
    fn columns(&self) -> Vec<&'static str>;
    /// As many cells in each row.
    fn rows(&self) -> Vec<Vec<String>>;
}

/// Form of a report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// A Markdown table.
    Markdown,
    /// One JSON object.
    Json,
    /// A header line and one line a case.
    Csv,
}

/// The report as text, ending in a newline.
pub fn render(report: &impl Table, format: Format) -> Result<String> {
    match format {
        Format::Json => {
            let mut text =
                serde_json::to_string(report).map_err(|e| Error::Internal { op: "bench report", message: e.to_string() })?;
            text.push('\n');
            Ok(text)
        }
        Format::Markdown => {
            let columns = report.columns();
            let mut text = format!("{}\n\n", report.title());
            text += &format!("| {} |\n|{}\n", columns.join(" | "), "---|".repeat(columns.len()));
            for cells in report.rows() {
                text += &format!("| {} |\n", cells.join(" | "));
            }
            Ok(text)
        }
        Format::Csv => {
            let names = report.columns().into_iter().map(|c| c.replace([' ', '/'], "_")).collect();
            let line = |cells: Vec<String>| cells.into_iter().map(csv_cell).collect::<Vec<_>>().join(",") + "\n";
            Ok(std::iter::once(names).chain(report.rows()).map(line).collect())
        }
    }
}

fn csv_cell(text: String) -> String {
    if text.contains([',', '"']) { format!("\"{}\"", text.replace('"', "\"\"")) } else { text }
}

impl Table for Report {
    fn title(&self) -> String {
        format!("syntic {}, {}, model {}", self.version, self.device, self.model)
    }

    fn columns(&self) -> Vec<&'static str> {
        vec!["case", "dtype", "reps", "median s", "min s", "max s", "GFLOP", "GFLOP/s", "arena MiB", "peak MiB", "images/s"]
    }

    fn rows(&self) -> Vec<Vec<String>> {
        let optional = |value: Option<f64>, digits: usize| value.map_or(String::new(), |v| format!("{v:.digits$}"));
        let cells = |row: &Row| {
            vec![
                row.case.clone(),
                row.dtype.clone(),
                row.reps.to_string(),
                format!("{:.4}", row.median_s),
                format!("{:.4}", row.min_s),
                format!("{:.4}", row.max_s),
                format!("{:.1}", row.gflop),
                format!("{:.1}", row.gflop_per_s),
                format!("{:.0}", row.arena_mib),
                optional(row.peak_mib, 0),
                optional(row.images_per_s, 4),
            ]
        };
        self.results.iter().map(cells).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        let row = Row {
            case: "unet, 64x64".into(),
            dtype: "f32".into(),
            reps: 3,
            median_s: 0.5,
            min_s: 0.25,
            max_s: 1.0,
            gflop: 803.3,
            gflop_per_s: 1606.6,
            arena_mib: 10.0,
            peak_mib: None,
            images_per_s: Some(2.0),
        };
        Report { version: "0".into(), device: "cpu".into(), model: "m".into(), results: vec![row] }
    }

    #[test]
    fn all_forms_hold_the_same_figures() {
        let markdown = render(&report(), Format::Markdown).unwrap();
        assert!(markdown.contains("| unet, 64x64 | f32 | 3 | 0.5000 |"), "{markdown}");
        let csv = render(&report(), Format::Csv).unwrap();
        assert!(csv.ends_with("\"unet, 64x64\",f32,3,0.5000,0.2500,1.0000,803.3,1606.6,10,,2.0000\n"), "{csv}");
        let json: serde_json::Value = serde_json::from_str(&render(&report(), Format::Json).unwrap()).unwrap();
        assert_eq!(json["results"][0]["median_s"], 0.5);
    }
}
