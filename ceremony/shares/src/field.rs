//! Polynomials over GF(256), with the polynomial x^8 + x^4 + x^3 + x + 1 as in AES.

use vsss_rs::Gf256;
use zeroize::Zeroizing;

/// A value of the polynomials: one byte of it is the value of one polynomial.
pub(crate) type Value = Zeroizing<Box<[u8]>>;

/// A value of so many bytes, all zero, to be filled in its place.
pub(crate) fn zeroes(length: usize) -> Value {
    Zeroizing::new(vec![0; length].into_boxed_slice())
}

/// The value at `x` of the polynomials of least degree through these points (Lagrange). All values are as long as the
/// first one.
///
/// Where the points lie is public. Their values are only added and multiplied, in constant time.
///
/// `None` where there is no point, or two of them lie at the same place.
pub(crate) fn interpolate(points: &[(u8, &[u8])], x: u8) -> Option<Value> {
    let (_, first) = points.first()?;
    let mut value = zeroes(first.len());
    for (index, (place, at)) in points.iter().enumerate() {
        let mut weight = Gf256(1);
        for (other_index, (other, _)) in points.iter().enumerate() {
            if other_index == index {
                continue;
            }
            if other == place {
                return None;
            }
            // Subtraction is XOR here.
            weight *= Gf256(x ^ other) / Gf256(place ^ other);
        }
        for (sum, byte) in value.iter_mut().zip(at.iter()) {
            *sum ^= (weight * Gf256(*byte)).0;
        }
    }
    Some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The promise behind "M - 1 shares tell nothing", without statistics: whatever the secret byte is, each value of a
    /// share that is missing gives another value of the share that is seen, and all 256 occur.
    #[test]
    fn one_share_of_two_is_consistent_with_every_secret_alike() {
        for secret in 0..=255_u8 {
            let mut seen = [false; 256];
            for missing in 0..=255_u8 {
                let points: [(u8, &[u8]); 2] = [(255, &[secret]), (254, &[missing])];
                let share = interpolate(&points, 0).unwrap();
                seen[usize::from(share[0])] = true;
            }
            assert!(seen.iter().all(|seen| *seen), "secret {secret}");
        }
    }

    #[test]
    fn a_polynomial_goes_through_its_points() {
        let points: [(u8, &[u8]); 3] = [(0, &[7, 1]), (9, &[200, 2]), (255, &[3, 255])];
        for (place, at) in points {
            assert_eq!(&**interpolate(&points, place).unwrap(), at);
        }
    }

    #[test]
    fn two_points_at_one_place_are_none() {
        assert!(interpolate(&[(3, &[1]), (3, &[2])], 0).is_none());
        assert!(interpolate(&[], 0).is_none());
    }
}
