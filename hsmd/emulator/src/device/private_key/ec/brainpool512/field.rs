//! The field of the coordinates.

use ecdsa::elliptic_curve::bigint::U512;
use ecdsa::elliptic_curve::ff::PrimeField;
use ecdsa::elliptic_curve::ops::BatchInvert;
use ecdsa::elliptic_curve::subtle::{Choice, ConstantTimeEq, CtOption};

const MODULUS_HEX: &str = "aadd9db8dbe9c48b3fd4e6ae33c9fc07cb308db3b3c9d20ed6639cca703308717d4d9b009bc66842aecda12ae6a380e62881ff2f2d82c68528aa6056583a48f3";

// The macro wants a multiplicative generator, but uses no more of it than that it is no square.
primefield::monty_field_params! {
    name: FieldParams,
    modulus: MODULUS_HEX,
    uint: U512,
    byte_order: primefield::ByteOrder::BigEndian,
    multiplicative_generator: 2,
    doc: "The field's modulus"
}

primefield::monty_field_element! {
    name: FieldElement,
    params: FieldParams,
    uint: U512,
    doc: "A coordinate"
}

primefield::monty_field_arithmetic! {
    name: FieldElement,
    params: FieldParams,
    uint: U512
}

impl BatchInvert for FieldElement {}
