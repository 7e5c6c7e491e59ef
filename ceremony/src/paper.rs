//! Pages for the printer: text in Courier, bars and QR codes, as a PDF. The fonts are those that every PDF reader and
//! printer has, so nothing is embedded.

use std::str::FromStr;

use pdf_writer::{Content, Finish as _, Name, Pdf, Rect, Ref, Str};
use qrcodegen::{QrCode, QrCodeEcc};
use zeroize::Zeroizing;

/// Size of the paper. Lengths are points, 1/72 inch, from the lower left corner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Paper {
    /// 210 mm by 297 mm.
    A4,
    /// 8.5 by 11 inches.
    Letter,
}

impl Paper {
    /// Width and height.
    pub fn size(self) -> (f32, f32) {
        match self {
            Self::A4 => (595.0, 842.0),
            Self::Letter => (612.0, 792.0),
        }
    }
}

impl FromStr for Paper {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        match name {
            "a4" => Ok(Self::A4),
            "letter" => Ok(Self::Letter),
            _ => Err("paper is a4 or letter".to_owned()),
        }
    }
}

/// Courier's letters are this part of their size wide.
pub const LETTER_WIDTH: f32 = 0.6;

/// Room left at every edge, which printers do not reach.
pub const MARGIN: f32 = 40.0;

/// Enough for the drawing of any page here: a buffer that grows would leave what it held behind in memory.
const PAGE_BYTES: usize = 256 << 10;

/// Bytes of a document beside its pages' drawings, for each page.
const FRAME_BYTES: usize = 4 << 10;

const REGULAR: Name<'static> = Name(b"R");
const BOLD: Name<'static> = Name(b"B");

/// How heavy letters are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Weight {
    /// Courier.
    Regular,
    /// Courier-Bold.
    Bold,
}

/// A page that is drawn.
pub struct Page(Content);

impl Page {
    /// An empty page.
    pub fn new() -> Self {
        Self(Content::with_capacity(PAGE_BYTES))
    }

    /// A line of text, its baseline beginning at `(x, y)`. Letters beyond Latin-1 are drawn as `?`; what is printed is
    /// checked for them before.
    pub fn text(&mut self, x: f32, y: f32, size: f32, weight: Weight, text: &str) {
        let font = if weight == Weight::Bold {
            BOLD
        } else {
            REGULAR
        };
        let latin = text
            .chars()
            .map(|letter| u8::try_from(letter).unwrap_or(b'?'));
        let latin: Zeroizing<Vec<u8>> = Zeroizing::new(latin.collect());
        self.0
            .begin_text()
            .set_font(font, size)
            .next_line(x, y)
            .show(Str(&latin))
            .end_text();
    }

    /// A horizontal line from `x` on.
    pub fn rule(&mut self, x: f32, y: f32, width: f32) {
        self.0.rect(x, y, width, 0.8).fill_nonzero();
    }

    /// A QR code of alphanumeric text (`0-9 A-Z $%*+-./:` and blanks), in a square of this width without its quiet zone,
    /// of the middle level of correction. Gives its version.
    ///
    /// # Errors
    /// Where the text is too long for a code that a printer and a common scanner manage, of version 13.
    pub fn qr(&mut self, x: f32, y: f32, width: f32, text: &str) -> Result<u8, TooLong> {
        const LARGEST: u8 = 13;
        let too_long = TooLong(text.len());
        let code = QrCode::encode_text(text, QrCodeEcc::Medium).map_err(|_| too_long)?;
        if code.version().value() > LARGEST {
            return Err(too_long);
        }
        let modules = code.size();
        let module = width / f32::from(u16::try_from(modules).unwrap_or(u16::MAX));
        let place = |index: i32| module * f32::from(u16::try_from(index).unwrap_or(u16::MAX));
        for row in 0..modules {
            let mut column = 0;
            while column < modules {
                let dark = (column..modules)
                    .take_while(|column| code.get_module(*column, row))
                    .count();
                let dark = i32::try_from(dark).unwrap_or(modules);
                if dark > 0 {
                    self.0.rect(
                        x + place(column),
                        y + width - place(row + 1),
                        place(dark),
                        module,
                    );
                }
                column += dark + 1;
            }
        }
        self.0.fill_nonzero();
        Ok(code.version().value())
    }
}

impl Default for Page {
    fn default() -> Self {
        Self::new()
    }
}

/// The document of these pages, wiped when it is dropped.
pub fn document(paper: Paper, pages: Vec<Page>) -> Zeroizing<Vec<u8>> {
    let mut pdf = Pdf::with_capacity(FRAME_BYTES + pages.len() * (PAGE_BYTES + FRAME_BYTES));
    let (catalog, tree, regular, bold) = (Ref::new(1), Ref::new(2), Ref::new(3), Ref::new(4));
    let ids: Vec<(Ref, Ref)> = (0..)
        .zip(&pages)
        .map(|(n, _)| (Ref::new(5 + 2 * n), Ref::new(6 + 2 * n)))
        .collect();
    let (width, height) = paper.size();
    pdf.catalog(catalog).pages(tree);
    let count = i32::try_from(pages.len()).unwrap_or(i32::MAX);
    pdf.pages(tree)
        .kids(ids.iter().map(|(page, _)| *page))
        .count(count);
    for (font, name) in [(regular, Name(b"Courier")), (bold, Name(b"Courier-Bold"))] {
        pdf.type1_font(font)
            .base_font(name)
            .encoding_predefined(Name(b"WinAnsiEncoding"));
    }
    for ((page, contents), drawn) in ids.into_iter().zip(pages) {
        let mut page = pdf.page(page);
        page.media_box(Rect::new(0.0, 0.0, width, height))
            .parent(tree)
            .contents(contents);
        page.resources()
            .fonts()
            .pair(REGULAR, regular)
            .pair(BOLD, bold);
        page.finish();
        let drawn = Zeroizing::new(drawn.0.finish().into_vec());
        pdf.stream(contents, &drawn);
    }
    Zeroizing::new(pdf.finish())
}

/// Too much text for a QR code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0} letters do not fit into a QR code that is read reliably from paper")]
pub struct TooLong(usize);
