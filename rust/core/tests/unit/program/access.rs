use super::*;

#[test]
fn a_seed_fixes_the_random_order() {
    // Made with the few lines of the program format's definition in another language.
    assert_eq!(shuffled(8, 0), [2, 5, 0, 3, 4, 6, 1, 7]);
    assert_eq!(shuffled(8, 7), shuffled(8, 7));
    assert_ne!(shuffled(8, 7), shuffled(8, 8));
    assert_eq!(shuffled(1, 3), [0]);
}

#[test]
fn splitmix64_gives_its_published_numbers() {
    let mut state = 1234567;
    let drawn: Vec<u64> = (0..3).map(|_| splitmix64(&mut state)).collect();
    assert_eq!(drawn, [6457827717110365317, 3203168211198807973, 9817491932198370423]);
}

#[test]
fn a_random_order_visits_every_place_once() {
    let mut places = shuffled(1000, 42);
    places.sort_unstable();
    assert_eq!(places, (0..1000).collect::<Vec<u32>>());
}
