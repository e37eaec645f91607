//! Choices at random that can be made again.

use rand::SeedableRng as _;
use rand::rngs::StdRng;

/// The seed of this run: `TIDEGATE_TEST_SEED`, or a new one. It is printed, and a test that fails
/// shows it.
pub fn seed() -> u64 {
    let seed = std::env::var("TIDEGATE_TEST_SEED").map_or_else(
        |_| rand::random(),
        |text| text.parse().expect("TIDEGATE_TEST_SEED is a whole number"),
    );
    eprintln!("replay with TIDEGATE_TEST_SEED={seed}");
    seed
}

/// The choices of one of several threads.
pub fn choices(seed: u64, thread: usize) -> StdRng {
    StdRng::seed_from_u64(seed ^ (thread as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15))
}
