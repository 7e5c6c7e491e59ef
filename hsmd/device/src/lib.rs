//! HSMs behind one narrow trait: YubiHSM2, PKCS#11 and the mock.
