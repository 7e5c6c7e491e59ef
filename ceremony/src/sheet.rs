//! The sheet of paper that a custodian gets: the share as words and as a QR code, and what to know of it.

use hsm_shares::Share;
use zeroize::Zeroizing;

use crate::commitment::Commitment;
use crate::paper::{LETTER_WIDTH, MARGIN, Page, Paper, TooLong, Weight, document};
use crate::pgp_words;
use crate::transcript::ShareId;

/// What is printed around a share.
pub struct Sheet<'a> {
    /// What the ceremony is called.
    pub title: &'a str,
    /// The share's place.
    pub place: ShareId,
    /// What its group is called.
    pub group: &'a str,
    /// Who keeps it.
    pub custodian: &'a str,
    /// The serial numbers of its bags.
    pub bags: &'a [String],
    /// The commitment to it.
    pub commitment: Commitment,
    /// Whether nothing of it is real.
    pub practice: bool,
}

const COLUMNS: usize = 3;
const QR_WIDTH: f32 = 200.0;

impl Sheet<'_> {
    /// The sheet of a share, as a PDF of one page. It holds the share in the clear: it goes to the printer, and nowhere
    /// else. Wiped when it is dropped, but for what the QR library held.
    ///
    /// # Errors
    /// Where the share is too long for a QR code, which no share of 256 bits is.
    pub fn print(&self, paper: Paper, share: &Share) -> Result<Zeroizing<Vec<u8>>, TooLong> {
        let (width, height) = paper.size();
        let mut page = Page::new();
        let mut y = height - MARGIN - 14.0;
        if self.practice {
            page.text(
                MARGIN,
                y,
                20.0,
                Weight::Bold,
                "PRACTICE - NOTHING HERE IS REAL",
            );
            y -= 26.0;
        }
        page.text(
            MARGIN,
            y,
            fitting(width, 14.0, self.title),
            Weight::Bold,
            self.title,
        );
        y -= 24.0;
        let ShareId {
            generation,
            group,
            member,
        } = self.place;
        for (name, value) in [
            (
                "share",
                format!("generation {generation}, group {group}, member {member}"),
            ),
            ("group", self.group.to_owned()),
            ("custodian", self.custodian.to_owned()),
            ("bags", self.bags.join(", then ")),
        ] {
            let line = format!("{name:<10} {value}");
            page.text(
                MARGIN,
                y,
                fitting(width, 12.0, &line),
                Weight::Regular,
                &line,
            );
            y -= 17.0;
        }
        page.rule(MARGIN, y, width - 2.0 * MARGIN);
        y = self.words(&mut page, y - 22.0, width, share);
        page.rule(MARGIN, y, width - 2.0 * MARGIN);
        y -= QR_WIDTH + 16.0;
        page.qr(MARGIN, y, QR_WIDTH, &qr_text(share))?;
        let beside = MARGIN + QR_WIDTH + 24.0;
        let mut line = y + QR_WIDTH - 12.0;
        for text in [
            "SECRET. Any quorum of such",
            "sheets rebuilds the wrap key.",
            "",
            "Never photograph or copy it.",
            "The code holds the same words.",
            "",
            "Where the seal of its bag is",
            "broken, tell the ceremony's",
            "administrator at once.",
        ] {
            page.text(beside, line, 11.0, Weight::Regular, text);
            line -= 16.0;
        }
        y -= 24.0;
        page.text(
            MARGIN,
            y,
            11.0,
            Weight::Bold,
            "Commitment, to be compared with the transcript:",
        );
        for line in pgp_words::lines(&self.commitment.digest.0) {
            y -= 15.0;
            page.text(
                MARGIN,
                y,
                fitting(width, 9.0, &line),
                Weight::Regular,
                &line,
            );
        }
        Ok(document(paper, vec![page]))
    }

    /// The words, numbered, down the columns. Gives where they end.
    fn words(&self, page: &mut Page, top: f32, width: f32, share: &Share) -> f32 {
        const LEADING: f32 = 22.0;
        let words = share.words();
        let rows = words.iter().len().div_ceil(COLUMNS);
        let column_width = (width - 2.0 * MARGIN) / 3.0;
        let (mut x, mut y) = (MARGIN, top);
        for (number, word) in (1..).zip(words.iter()) {
            page.text(x, y, 15.0, Weight::Regular, &format!("{number:>2}"));
            page.text(x + 24.0, y, 15.0, Weight::Bold, word);
            y -= LEADING;
            if number % rows == 0 {
                (x, y) = (x + column_width, top);
            }
        }
        (0..rows).fold(top, |y, _| y - LEADING) + LEADING / 2.0
    }
}

/// The words in capitals: alphanumeric, as QR codes hold it most densely.
fn qr_text(share: &Share) -> Zeroizing<String> {
    // 33 words of at most 8 letters, and blanks.
    let mut text = Zeroizing::new(String::with_capacity(33 * 9));
    for word in share.words().iter() {
        if !text.is_empty() {
            text.push(' ');
        }
        text.extend(word.chars().map(|letter| letter.to_ascii_uppercase()));
    }
    text
}

/// The size of letters, at most this one, in which a line fits between the margins.
fn fitting(width: f32, size: f32, line: &str) -> f32 {
    let letters = u16::try_from(line.chars().count().max(1)).unwrap_or(u16::MAX);
    size.min((width - 2.0 * MARGIN) / (f32::from(letters) * LETTER_WIDTH))
}
