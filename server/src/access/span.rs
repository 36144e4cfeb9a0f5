//! Where in an ordered map a caller may find anything: listing looks there only, so that it costs what the caller may
//! see and not what there is.

/// A name, or every name that begins with a text.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span {
    text: String,
    exact: bool,
}

impl Span {
    /// Just this name.
    pub fn exact(text: impl Into<String>) -> Self {
        Self { text: text.into(), exact: true }
    }

    /// Every name that begins so.
    pub fn prefix(text: impl Into<String>) -> Self {
        Self { text: text.into(), exact: false }
    }

    /// The name, or how names begin.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Whether it is just one name.
    pub fn is_exact(&self) -> bool {
        self.exact
    }

    /// Whether a name lies in it.
    pub fn contains(&self, name: &str) -> bool {
        if self.exact { name == self.text } else { name.starts_with(&self.text) }
    }

    /// What lies in both.
    fn and(&self, other: &Span) -> Option<Span> {
        if other.exact || (!self.exact && other.text.starts_with(&self.text)) {
            self.contains(&other.text).then(|| other.clone())
        } else {
            other.contains(&self.text).then(|| self.clone())
        }
    }
}

/// In order, without those that lie within another: every name lies in one of them at most.
pub(super) fn outermost(mut spans: Vec<Span>) -> Vec<Span> {
    // A prefix sorts before the exact name of the same text, and before all that begins with it.
    spans.sort();
    let mut kept: Vec<Span> = Vec::with_capacity(spans.len());
    // Of the prefixes kept only the last can cover what follows: prefixes kept do not lie within each other.
    let mut last_prefix: Option<Span> = None;
    for span in spans {
        let is_covered = last_prefix.as_ref().is_some_and(|prefix| covers(prefix, &span));
        if is_covered || kept.last() == Some(&span) {
            continue;
        }
        if !span.exact {
            last_prefix = Some(span.clone());
        }
        kept.push(span);
    }
    kept
}

fn covers(outer: &Span, inner: &Span) -> bool {
    !outer.exact && inner.text.starts_with(&outer.text)
}

/// The parts of these that lie within another span.
pub fn within(spans: Vec<Span>, other: &Span) -> Vec<Span> {
    outermost(spans.into_iter().filter_map(|span| span.and(other)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn span() -> impl Strategy<Value = Span> {
        ("[ab/]{0,4}", any::<bool>()).prop_map(|(text, exact)| Span { text, exact })
    }

    #[test]
    fn an_exact_name_takes_no_neighbours() {
        let spans = within(vec![Span::exact("accounts/a"), Span::prefix("accounts/a/plugins/")], &Span::prefix(""));
        assert!(spans.iter().any(|span| span.contains("accounts/a")));
        assert!(spans.iter().any(|span| span.contains("accounts/a/plugins/g")));
        assert!(!spans.iter().any(|span| span.contains("accounts/ab")));
    }

    proptest! {
        #[test]
        fn a_name_lies_in_the_result_once_if_it_lay_in_both(
            spans in proptest::collection::vec(span(), 0..6),
            other in span(),
            name in "[ab/]{0,5}",
        ) {
            let lay = spans.iter().any(|span| span.contains(&name)) && other.contains(&name);
            let found = within(spans, &other);
            prop_assert_eq!(found.iter().filter(|span| span.contains(&name)).count(), usize::from(lay));
            prop_assert!(found.is_sorted());
        }
    }
}
