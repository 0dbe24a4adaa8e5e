use super::*;
use crate::design::Spf;
use crate::support::{PAGE, World};

#[test]
fn lengths_and_files_that_cannot_be_are_refused() {
    let w = World::<Spf>::boot();
    let files = [w.file(1, FileKind::Regular), w.file(1, FileKind::DevZero)];
    let truncate = |nth: usize, length| w.k.sys_ftruncate(&w.cpu, files[nth].ptr(), length);
    assert_eq!(truncate(0, 1 << 63), Err(Errno::Einval));
    assert_eq!(truncate(1, PAGE), Err(Errno::Einval));
    assert_eq!(files[0].i_size().peek(), PAGE);
    assert_eq!(truncate(0, 0), Ok(()));
    assert_eq!(files[0].i_size().peek(), 0);
    w.check();
    w.close(&files);
    w.end();
}
