use super::*;

fn at(time_ns: u64, cpu: u32) -> TraceEntry {
    let [vm_start, vm_end, address] = [0x1000, 0x3000, 0x2000];
    let event = Event::SpfVmaNotsup;
    TraceEntry { time_ns, cpu, task: 7, event, irqs_off: true, vm_start, vm_end, address }
}

#[test]
fn of_more_than_fit_the_oldest_go() {
    let trace = Trace::new(3);
    (0..5).for_each(|time| trace.write(at(time, 0)));
    assert_eq!(trace.take(), ([2, 3, 4].map(|time| at(time, 0)).to_vec(), 5));
    assert_eq!(trace.take(), (Vec::new(), 0), "taken");
}

#[test]
fn what_cpus_write_is_put_in_order_of_time() {
    let trace = Trace::new(9);
    for entry in [at(5, 1), at(3, 0), at(5, 0)] {
        trace.write(entry);
    }
    assert_eq!(trace.take().0, [at(3, 0), at(5, 0), at(5, 1)]);
}

#[test]
fn an_entry_is_packed_field_by_field() {
    let packed = at(0x0102, 3).packed();
    assert_eq!(packed[..10], [2, 1, 0, 0, 0, 0, 0, 0, 0, 0x10]);
    assert_eq!(packed[32..], [3, 0, 0, 0, 7, 0, 0, 0, Event::SpfVmaNotsup as u8, 1]);
}
