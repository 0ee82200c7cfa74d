//! For the tests of this module: repeatable words, and exact fixed-point numbers wide enough for products of two f64.

use super::format::Rounding;

pub const ROUNDINGS: [Rounding; 5] = [Rounding::NearestEven, Rounding::Zero, Rounding::Down, Rounding::Up, Rounding::NearestAway];
/// Those that arithmetic instructions have.
pub const DIRECTIONS: [Rounding; 4] = [Rounding::NearestEven, Rounding::Zero, Rounding::Down, Rounding::Up];

/// A repeatable stream of 64-bit words (splitmix64).
pub struct Words(pub u64);

impl Words {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    /// A finite f32: half of the time with an exponent near 0, with few or many fraction bits, or an edge value.
    pub fn f32(&mut self) -> f32 {
        const EDGES: [u32; 12] = [
            0,
            1,
            2,
            0x007f_ffff,
            0x0080_0000,
            0x0080_0001,
            0x3f80_0000,
            0x3f80_0001,
            0x3f7f_ffff,
            0x7f7f_ffff,
            0x7f00_0000,
            0x4b80_0000,
        ];
        let word = self.next();
        let sign = (word >> 32) as u32 & 0x8000_0000;
        let fraction = word as u32 & 0x007f_ffff & (u32::MAX << (word >> 40 & 0x1f).min(23));
        let bits = match word >> 56 & 7 {
            0 => EDGES[self.next() as usize % EDGES.len()],
            1..4 => fraction | ((self.next() % 255) as u32) << 23,
            _ => fraction | ((127 - 26 + self.next() % 52) as u32) << 23,
        };
        f32::from_bits(sign | bits)
    }

    /// A finite f64, in the same manner.
    pub fn f64(&mut self) -> f64 {
        let word = self.next();
        let fraction = self.next() & 0x000f_ffff_ffff_ffff & (u64::MAX << (word & 0x3f).min(52));
        let bits = match word >> 56 & 7 {
            0 => [0, 1, 0x000f_ffff_ffff_ffff, 0x0010_0000_0000_0000, 0x7fef_ffff_ffff_ffff, 0x3ff0_0000_0000_0001]
                [(word as usize >> 8) % 6],
            1..4 => fraction | (self.next() % 2047) << 52,
            _ => fraction | (1023 - 56 + self.next() % 112) << 52,
        };
        f64::from_bits(word & 1 << 63 | bits)
    }
}

/// Two's complement, in units of 2^-2150.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Fixed([u64; 72]);

impl Fixed {
    fn new(negative: bool, magnitude: u128, exponent: i32) -> Fixed {
        let mut words = [0; 72];
        let position = (exponent + 2150) as usize;
        let (word, bit) = (position / 64, position % 64);
        words[word] = (magnitude << bit) as u64;
        words[word + 1] = (magnitude >> 1 >> (63 - bit)) as u64;
        words[word + 2] = (magnitude >> 65 >> (63 - bit)) as u64;
        if negative { Fixed(words).negated() } else { Fixed(words) }
    }

    /// Significand and exponent by plain bit-picking.
    fn parts(value: f64) -> (bool, u64, i32) {
        let bits = value.to_bits();
        let biased = (bits >> 52 & 0x7ff) as i32;
        assert!(biased != 0x7ff, "{value} is not finite");
        let fraction = bits & ((1 << 52) - 1);
        (bits >> 63 == 1, if biased == 0 { fraction } else { fraction | 1 << 52 }, biased.max(1) - 1075)
    }

    pub fn from(value: f64) -> Fixed {
        let (negative, magnitude, exponent) = Fixed::parts(value);
        Fixed::new(negative, magnitude as u128, exponent)
    }

    pub fn product(a: f64, b: f64) -> Fixed {
        let ((an, am, ae), (bn, bm, be)) = (Fixed::parts(a), Fixed::parts(b));
        Fixed::new(an != bn, am as u128 * bm as u128, ae + be)
    }

    pub fn plus(self, other: Fixed) -> Fixed {
        let mut words = [0; 72];
        let mut carry = false;
        for (word, (&a, &b)) in words.iter_mut().zip(self.0.iter().zip(&other.0)) {
            let (sum, first) = a.overflowing_add(b);
            let (sum, second) = sum.overflowing_add(carry as u64);
            (*word, carry) = (sum, first || second);
        }
        Fixed(words)
    }

    pub fn negated(self) -> Fixed {
        Fixed(self.0.map(|word| !word)).plus(Fixed::unit())
    }

    fn unit() -> Fixed {
        let mut words = [0; 72];
        words[0] = 1;
        Fixed(words)
    }

    pub fn minus(self, other: Fixed) -> Fixed {
        self.plus(other.negated())
    }

    /// -1, 0 or 1.
    pub fn sign(self) -> i32 {
        if self.0[71] >> 63 == 1 { -1 } else { self.0.iter().any(|&word| word != 0) as i32 }
    }
}

/// Whether `result` is one of a format's numbers that `rounding` allows, given the signs of exact - candidate.
///
/// `against(x)` is the sign of (exact - x); `below` and `above` are the neighbours of `result`; `even` says whether its pattern is.
pub fn is_rounded(result: f64, below: f64, above: f64, even: bool, rounding: Rounding, against: impl Fn(Fixed) -> i32) -> bool {
    let side = against(Fixed::from(result));
    let doubled = |x: f64| Fixed::from(result).plus(Fixed::from(x));
    match rounding {
        _ if side == 0 => true,
        Rounding::Down => side > 0 && against(Fixed::from(above)) < 0,
        Rounding::Up => side < 0 && against(Fixed::from(below)) > 0,
        Rounding::Zero if against(Fixed::from(0.0)) > 0 => side > 0 && against(Fixed::from(above)) < 0,
        Rounding::Zero => side < 0 && against(Fixed::from(below)) > 0,
        // The exact value doubled, against the sum of the two neighbours it lies between.
        _ => {
            let neighbour = if side > 0 { above } else { below };
            let middle = halved(doubled(neighbour));
            let past = against(middle) * side;
            past < 0 || (past == 0 && even)
        }
    }
}

/// Half of a number whose last bit is 0, as that of any sum of two f32 or f64 is in these units.
fn halved(value: Fixed) -> Fixed {
    assert_eq!(value.0[0] & 1, 0);
    let mut words = value.0;
    let mut carry = value.0[71] >> 63;
    for word in words.iter_mut().rev() {
        (*word, carry) = (*word >> 1 | carry << 63, *word & 1);
    }
    Fixed(words)
}
