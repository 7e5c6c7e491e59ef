//! Pure decisions: who may have what signed, what conflicts with what, sign bytes per chain.
