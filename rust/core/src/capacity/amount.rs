//! `Amount` and `Weight`, as whole millionths. Costs (`cost.rs`) and limits (`config.rs`) are made of amounts; shares
//! (`model/share.rs`) use weights.

use super::AmountError;
use std::fmt;

/// The number of micro-units in one unit.
const MICROS: u64 = 1_000_000;

/// An amount of a resource, in whole millionths of a unit: a slot, a token, a dollar.
///
/// Integers are exact: an amount that is taken and given back a billion times leaves no error.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Amount(u64);

impl Amount {
    /// Zero.
    pub const ZERO: Self = Self(0);

    /// One unit.
    pub const ONE: Self = Self(MICROS);

    /// The largest amount of a request or a limit: 10¹² units. Sums of amounts are kept in `u128`.
    pub const MAX: Self = Self(1_000_000_000_000 * MICROS);

    /// Return an amount in whole units.
    ///
    /// # Panics
    ///
    /// Above [`MAX`](Self::MAX).
    pub const fn units(units: u64) -> Self {
        assert!(
            units <= Self::MAX.0 / MICROS,
            "an amount is at most 10^12 units"
        );
        Self(units * MICROS)
    }

    /// Return an amount in millionths of a unit.
    ///
    /// # Panics
    ///
    /// Above [`MAX`](Self::MAX).
    pub const fn micros(micros: u64) -> Self {
        assert!(micros <= Self::MAX.0, "an amount is at most 10^12 units");
        Self(micros)
    }

    /// Return the nearest amount to `units`, but never zero for a positive number.
    ///
    /// # Errors
    ///
    /// If `units` is negative, not a number, infinite, or above [`MAX`](Self::MAX).
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss
    )] // checked: it is between 0 and 10^12, and rounded
    pub fn from_f64(units: f64) -> Result<Self, AmountError> {
        if units.is_nan() {
            return Err(AmountError::NotANumber);
        }
        if units < 0.0 {
            return Err(AmountError::Negative);
        }
        if units > (Self::MAX.0 / MICROS) as f64 {
            return Err(AmountError::TooLarge);
        }
        let micros = (units * MICROS as f64).round() as u64;
        Ok(Self(if units > 0.0 { micros.max(1) } else { 0 }))
    }

    /// In units; exact below 2⁵³ micro-units.
    #[allow(clippy::cast_precision_loss)] // said so
    pub fn as_f64(self) -> f64 {
        self.0 as f64 / MICROS as f64
    }

    /// In micro-units.
    #[inline]
    pub const fn as_micros(self) -> u64 {
        self.0
    }

    /// Return whether this is zero.
    #[inline]
    pub const fn is_zero(self) -> bool {
        self.0 == 0
    }

    /// Return an amount that was computed, such as a sum; it may be above [`MAX`](Self::MAX).
    #[inline]
    pub(super) const fn raw(micros: u64) -> Self {
        Self(micros)
    }

    /// Subtract `other`, down to zero.
    #[inline]
    #[must_use]
    pub const fn saturating_sub(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }
}

impl fmt::Display for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (units, micros) = (self.0 / MICROS, self.0 % MICROS);
        if micros == 0 {
            return write!(f, "{units}");
        }
        let digits = format!("{micros:06}");
        write!(f, "{units}.{}", digits.trim_end_matches('0'))
    }
}

impl fmt::Debug for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The weight of a node among its siblings: weight 2 is due twice the share of weight 1. In whole millionths.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Weight(u64);

impl Weight {
    /// The default weight.
    pub const ONE: Self = Self(MICROS);

    /// The smallest weight, 0.001.
    pub const MIN: Self = Self(MICROS / 1000);

    /// The largest weight, 1,000,000.
    pub const MAX: Self = Self(MICROS * 1_000_000);

    /// The nearest weight to `weight`.
    ///
    /// # Errors
    ///
    /// If `weight` is not a number, or not between [`MIN`](Self::MIN) and [`MAX`](Self::MAX).
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss
    )] // checked: it is between 0 and 10^6, and rounded
    pub fn from_f64(weight: f64) -> Result<Self, AmountError> {
        if weight.is_nan() {
            return Err(AmountError::NotANumber);
        }
        if weight < 0.0 {
            return Err(AmountError::Negative);
        }
        if weight < Self::MIN.as_f64() {
            return Err(AmountError::TooSmall);
        }
        if weight > Self::MAX.as_f64() {
            return Err(AmountError::TooLarge);
        }
        Ok(Self((weight * MICROS as f64).round() as u64))
    }

    /// As a float.
    #[allow(clippy::cast_precision_loss)] // at most 10^12
    pub fn as_f64(self) -> f64 {
        self.0 as f64 / MICROS as f64
    }

    #[inline]
    pub(super) const fn as_micros(self) -> u64 {
        self.0
    }
}

impl Default for Weight {
    fn default() -> Self {
        Self::ONE
    }
}
