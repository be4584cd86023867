//! Random operations against a naive model that keeps sets and asks for every pair.

use crate::support::{Dice, Model, Outcome, Player, random_op, scale};

#[test]
fn random_operations_do_what_the_model_says() {
    let cases = 2000 * scale();
    for seed in 0..cases {
        let mut dice = Dice::new(seed);
        // From packs that are full after one entry to packs that never are.
        let pack_bytes = [100, 3000, 100_000, 1 << 28][dice.below(4)];
        let mut player = Player::new(seed, pack_bytes);
        let mut model = Model::default();
        for step in 0..12 + dice.below(12) {
            let op = random_op(&mut dice);
            let good = model.apply(&op);
            let outcome = player.play(&op);
            assert!(
                matches!((good, &outcome), (true, Outcome::Done) | (false, Outcome::Refused)),
                "seed {seed} step {step}: {op:?} gave {outcome:?}"
            );
        }
        let store = player.open().unwrap();
        model.check(&store);
        if seed % 8 == 0 {
            let report = store.verify(&mut |_, _| {}).unwrap();
            assert_eq!(report.bad, [], "seed {seed}");
        }
        drop(store);
        player.store = None;
        model.check(&player.open().unwrap());
    }
    println!("{cases} runs of random operations");
}
