//! The name somebody probably meant.

/// The candidate at the smallest edit distance from `name`, if it is near enough to be worth showing: at most a third of the
/// name changed.
pub(super) fn nearest<'c>(name: &str, candidates: &[&'c str]) -> Option<&'c str> {
    let limit = name.len() / 3;
    // The distance is at least the difference of the lengths, so a candidate of any length costs little.
    let near = candidates.iter().filter(|c| c.len().abs_diff(name.len()) <= limit);
    let scored = near.map(|&c| (edit_distance(name.as_bytes(), c.as_bytes()), c));
    scored.min().filter(|&(distance, _)| distance <= limit).map(|(_, c)| c)
}

/// Levenshtein distance, one row of the table at a time.
fn edit_distance(a: &[u8], b: &[u8]) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let substituted = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances_match_hand_counts() {
        for (a, b, expected) in [("", "abc", 3), ("abc", "", 3), ("kitten", "sitting", 3), ("same", "same", 0), ("ab", "ba", 2)] {
            assert_eq!(edit_distance(a.as_bytes(), b.as_bytes()), expected, "{a} {b}");
        }
    }

    #[test]
    fn far_names_are_not_offered() {
        assert_eq!(nearest("conv_in.weight", &["conv_out.weight", "conv_im.weight"]), Some("conv_im.weight"));
        assert_eq!(nearest("conv_in.weight", &["time_embedding.linear_1.bias"]), None);
        assert_eq!(nearest("conv_in.weight", &[]), None);
    }
}
