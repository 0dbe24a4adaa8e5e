use super::*;

fn token(deviations: &[(u64, u32)]) -> Token {
    let deviations = deviations.iter().map(|&(point, rank)| Deviation { point, rank }).collect();
    Token { fingerprint: 0x12_3456_789a, deviations }
}

#[test]
fn a_token_reads_back_as_what_it_was() {
    for deviations in [&[][..], &[(0, 1)], &[(3, 0), (4, 2), (100_000, 63)], &[(u64::MAX >> 5, 1)]]
    {
        let token = token(deviations);
        let text = token.to_text();
        assert_eq!(Token::from_text(&text, token.fingerprint), Ok(token), "{text}");
    }
}

#[test]
fn a_schedule_with_two_preemptions_takes_a_dozen_letters() {
    // 2 choices; gap 40 = 8 + 2*16, rank 1; gap 99 = 3 + 6*16, rank 0.
    assert_eq!(token(&[(40, 1), (140, 0)]).to_text(), "e1-28t5cy4t-2r21k60");
}

#[test]
fn a_wrong_token_says_what_is_wrong() {
    let text = token(&[(40, 1)]).to_text();
    let error = |text: &str, fingerprint| Token::from_text(text, fingerprint).unwrap_err();
    assert!(error(&text, 1).contains("made for another program"));
    assert!(error(&text.replacen("e1", "e0", 1), 0x12_3456_789a).contains("another version"));
    assert!(error("hello", 0).contains("not of the form"));
    assert!(error(&text[..text.len() - 1], 0x12_3456_789a).contains("cut short"));
    assert!(error(&format!("{text}0"), 0x12_3456_789a).contains("longer"));
    assert!(error(&text.replace("-1", "-u"), 0x12_3456_789a).contains("no digit"));
}

#[test]
fn the_default_is_to_go_on_and_else_the_next_in_number() {
    assert_eq!(default_task(0b1011, 1, true), 1);
    assert_eq!(default_task(0b1001, 1, false), 3);
    assert_eq!(default_task(0b0011, 3, false), 0);
    assert_eq!(default_task(1, 63, false), 0);
}

#[test]
fn ranks_count_the_runnable_tasks() {
    for (rank, task) in [1, 3, 63].into_iter().enumerate() {
        let runnable = 1 << 1 | 1 << 3 | 1 << 63;
        assert_eq!(rank_of(runnable, task), rank as u32);
        assert_eq!(task_at(runnable, rank as u32), Some(task));
    }
    assert_eq!(task_at(0b11, 2), None);
}
