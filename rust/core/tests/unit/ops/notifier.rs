use super::*;
use crate::design::Spf;
use crate::support::World;

#[test]
fn one_is_registered_at_a_time() {
    let w = World::<Spf>::boot();
    assert_eq!(w.k.notifier(&w.cpu, false), Err(Errno::Enoent));
    assert_eq!(w.k.notifier(&w.cpu, true), Ok(()));
    assert_eq!(w.k.notifier(&w.cpu, true), Err(Errno::Eexist));
    assert_eq!(w.k.notifier(&w.cpu, false), Ok(()));
    w.end();
}
