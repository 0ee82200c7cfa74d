//! The dotted name of an instruction, taken apart piece by piece. What is left over at the end is unknown, hence an error.

use crate::number::format::Rounding;
use crate::syntax::{Space, Type};

/// An opcode with its modifiers.
pub(super) struct Opcode<'s> {
    /// The first word: "ld", "mma", ...
    pub name: &'s str,
    modifiers: Vec<(&'s str, bool)>,
}

impl<'s> Opcode<'s> {
    pub(super) fn new(text: &'s str) -> Opcode<'s> {
        let mut words = text.split('.');
        let name = words.next().unwrap_or("");
        Opcode { name, modifiers: words.map(|word| (word, false)).collect() }
    }

    /// Takes a modifier if it is there.
    pub(super) fn flag(&mut self, name: &str) -> bool {
        let found = self.modifiers.iter_mut().find(|(word, used)| !used && *word == name);
        found.map(|(_, used)| *used = true).is_some()
    }

    /// Takes the first modifier that is one of `names`.
    pub(super) fn choice<T: Copy>(&mut self, names: &[(&str, T)]) -> Option<T> {
        for (word, used) in self.modifiers.iter_mut().filter(|(_, used)| !used) {
            if let Some((_, value)) = names.iter().find(|(name, _)| name == word) {
                *used = true;
                return Some(*value);
            }
        }
        None
    }

    /// Takes every modifier that is one of `names`: hints that change no result.
    pub(super) fn ignore(&mut self, names: &[&str]) {
        for (word, used) in &mut self.modifiers {
            *used |= names.contains(word);
        }
    }

    /// Takes the next type.
    pub(super) fn ty(&mut self) -> Option<Type> {
        self.modifiers.iter_mut().filter(|(_, used)| !used).find_map(|(word, used)| {
            let ty = Type::parse(word)?;
            *used = true;
            Some(ty)
        })
    }

    /// `.rn`, `.rz`, `.rm`, `.rp`.
    pub(super) fn rounding(&mut self) -> Option<Rounding> {
        let names = [("rn", Rounding::NearestEven), ("rz", Rounding::Zero), ("rm", Rounding::Down), ("rp", Rounding::Up)];
        self.choice(&names)
    }

    /// A state space; generic if none is named.
    pub(super) fn space(&mut self) -> Space {
        let names = [
            ("global", Space::Global),
            ("shared", Space::Shared),
            ("shared::cta", Space::Shared),
            ("shared::cluster", Space::Shared), // a block is a cluster of its own here
            ("local", Space::Local),
            ("const", Space::Const),
            ("param", Space::Param),
            ("param::entry", Space::Param),
            ("param::func", Space::Param),
        ];
        self.choice(&names).unwrap_or(Space::Generic)
    }

    /// Elements of `.v2`, `.v4`, `.v8`.
    pub(super) fn vector(&mut self) -> usize {
        self.choice(&[("v2", 2), ("v4", 4), ("v8", 8)]).unwrap_or(1)
    }

    /// The first modifier that nothing took.
    pub(super) fn leftover(&self) -> Option<&'s str> {
        self.modifiers.iter().find(|(_, used)| !used).map(|(word, _)| *word)
    }
}
