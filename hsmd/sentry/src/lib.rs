//! Lets a stock CometBFT node sign through hsmd.
