use crate::design::Spf;
use crate::mm::{FileKind, VmFlags};
use crate::ops::mmap::MapFlags;
use crate::support::{PAGE, R, RW, World};

#[test]
fn lines_are_those_of_proc_maps() {
    let world = World::<Spf>::boot_with(|config| config.system.mmap_min_addr = PAGE);
    let file = world.file(16, FileKind::Regular).ptr();
    world.map_fixed(0x1000, PAGE, VmFlags::NONE);
    world.map_fixed(0x7f00_0000_0000, 2 * PAGE, RW | VmFlags::EXEC);
    let mut shared = world.anonymous(0x10_0000, PAGE);
    shared.flags = MapFlags(MapFlags::SHARED.0 | MapFlags::ANONYMOUS.0 | MapFlags::FIXED.0);
    shared.prot = R;
    world.k.sys_mmap(&world.cpu, &shared).expect("room");
    let mut of_file = world.anonymous(0x20_0000, PAGE);
    of_file.flags = MapFlags(MapFlags::PRIVATE.0 | MapFlags::FIXED.0);
    (of_file.file, of_file.offset) = (file, 3 * PAGE);
    world.k.sys_mmap(&world.cpu, &of_file).expect("room");
    assert_eq!(
        world.maps(),
        [
            "00001000-00002000 ---p 00000000",
            "00100000-00101000 r--s 00000000",
            "00200000-00201000 rw-p 00003000",
            "7f0000000000-7f0000002000 rwxp 00000000",
        ]
    );
}
