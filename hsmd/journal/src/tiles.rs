//! The tree and its entries as tiles: [c2sp.org/tlog-tiles](https://c2sp.org/tlog-tiles).

use crate::tree::{Hash, Tree, leaf_hash};

/// How many hashes, or entries, a whole tile has.
pub(crate) const WIDTH: u64 = 256;
/// Each tile stands for this many levels of the tree.
const LEVELS: u32 = 8;

/// A tile and its content: what is served under `path`.
pub(crate) struct Tile {
    /// Relative to the log's prefix.
    pub(crate) path: String,
    pub(crate) content: Vec<u8>,
}

/// Makes the tiles of a tree from its entries.
#[derive(Default)]
pub(crate) struct Tiles {
    tree: Tree,
    /// The last tile of each level, as far as it is filled.
    edge: Vec<Vec<Hash>>,
    /// The last bundle of entries, as far as it is filled.
    bundle: Vec<u8>,
}

impl Tiles {
    /// Goes on at `size` entries with the last tiles' hashes, lowest level first, and the last bundle, as
    /// [`edge_paths`] and [`bundle_path`] name them; `None` where they are not of that size.
    pub(crate) fn resume(size: u64, edge: Vec<Vec<Hash>>, bundle: Vec<u8>) -> Option<Self> {
        let mut frontier = Vec::new();
        for (level, hashes) in edge.iter().enumerate().rev() {
            let width = (size >> (LEVELS * level as u32)) % WIDTH;
            if hashes.len() as u64 != width {
                return None;
            }
            let mut tile = Tree::default();
            hashes.iter().for_each(|hash| tile.push(*hash));
            frontier.extend_from_slice(tile.frontier());
        }
        let tree = Tree::from_parts(size, frontier)?;
        Some(Self { tree, edge, bundle })
    }

    /// The tree of all entries so far.
    pub(crate) fn tree(&self) -> &Tree {
        &self.tree
    }

    /// Adds an entry; returns the tiles that it fills.
    pub(crate) fn push(&mut self, entry: &[u8]) -> Vec<Tile> {
        // A leaf of a journal is never longer.
        let length = entry.len() as u16;
        self.bundle.extend_from_slice(&length.to_be_bytes());
        self.bundle.extend_from_slice(entry);
        let mut full = Vec::new();
        let edge = &mut self.edge;
        self.tree.push_seeing(leaf_hash(entry), |place, hash| {
            if !place.level.is_multiple_of(LEVELS) {
                return;
            }
            let level = (place.level / LEVELS) as usize;
            if level == edge.len() {
                edge.push(Vec::new());
            }
            if let Some(tile) = edge.get_mut(level) {
                tile.push(*hash);
                if tile.len() as u64 == WIDTH {
                    full.push(Tile {
                        path: tile_path(level, place.number + 1 - WIDTH, WIDTH),
                        content: tile.concat(),
                    });
                    tile.clear();
                }
            }
        });
        if self.tree.size().is_multiple_of(WIDTH) {
            full.push(Tile {
                path: bundle_path(self.tree.size() - WIDTH, WIDTH),
                content: std::mem::take(&mut self.bundle),
            });
        }
        full
    }

    /// The tiles at the tree's edge, which are not full.
    pub(crate) fn partial(&self) -> Vec<Tile> {
        let size = self.tree.size();
        let mut tiles = Vec::new();
        for ((path, level), _) in edge_paths(size).into_iter().zip(0..) {
            let hashes = self.edge.get(level).map(|tile| tile.concat());
            let content = hashes.unwrap_or_default();
            tiles.push(Tile { path, content });
        }
        if !size.is_multiple_of(WIDTH) {
            tiles.push(Tile {
                path: bundle_path(size - size % WIDTH, size % WIDTH),
                content: self.bundle.clone(),
            });
        }
        tiles
    }
}

/// The tiles at the edge of a tree of `size` entries that are not full, and their levels.
pub(crate) fn edge_paths(size: u64) -> Vec<(String, usize)> {
    let mut paths = Vec::new();
    for level in 0..levels(size) {
        let count = size >> (LEVELS * level as u32);
        let width = count % WIDTH;
        if width > 0 {
            paths.push((tile_path(level, count - width, width), level));
        }
    }
    paths
}

/// How many levels of tiles a tree has.
pub(crate) fn levels(size: u64) -> usize {
    size.checked_ilog2()
        .map_or(0, |log| (log / LEVELS) as usize + 1)
}

/// The tile of this level that begins with hash `first` and has `width`.
fn tile_path(level: usize, first: u64, width: u64) -> String {
    format!("tile/{level}/{}", number(first / WIDTH, width))
}

/// The bundle that begins with entry `first` and has `width` of them.
pub(crate) fn bundle_path(first: u64, width: u64) -> String {
    format!("tile/entries/{}", number(first / WIDTH, width))
}

/// In groups of three digits, all but the last after an `x`; `.p/WIDTH` where it is not full.
fn number(tile: u64, width: u64) -> String {
    let mut path = format!("{:03}", tile % 1000);
    let mut rest = tile / 1000;
    while rest > 0 {
        path = format!("x{:03}/{path}", rest % 1000);
        rest /= 1000;
    }
    if width < WIDTH {
        path += &format!(".p/{width}");
    }
    path
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_those_of_the_specification() {
        assert_eq!(
            tile_path(0, 1_234_067 * WIDTH, WIDTH),
            "tile/0/x001/x234/067"
        );
        assert_eq!(tile_path(2, 0, 44), "tile/2/000.p/44");
        assert_eq!(bundle_path(5 * WIDTH, 1), "tile/entries/005.p/1");
        // The example of c2sp.org/tlog-tiles: a tree of 70,000 leaves.
        let edge: Vec<String> = edge_paths(70_000)
            .into_iter()
            .map(|(path, _)| path)
            .collect();
        assert_eq!(
            edge,
            ["tile/0/273.p/112", "tile/1/001.p/17", "tile/2/000.p/1"]
        );
        assert_eq!(edge_paths(256).len(), 1);
        assert_eq!(edge_paths(0).len(), 0);
    }

    #[test]
    fn tiles_go_on_from_any_size_as_if_they_had_been_made_at_once() {
        let entry = |index: u64| index.to_be_bytes().to_vec();
        let mut tiles = Tiles::default();
        for size in 0..700 {
            let edge = (0..levels(size))
                .map(|level| tiles.edge[level].clone())
                .collect();
            let mut again = Tiles::resume(size, edge, tiles.bundle.clone()).unwrap();
            assert_eq!(again.tree, tiles.tree, "{size}");
            let contents = |made: Vec<Tile>| -> Vec<_> {
                made.into_iter()
                    .map(|tile| (tile.path, tile.content))
                    .collect()
            };
            assert_eq!(
                contents(again.push(&entry(size))),
                contents(tiles.push(&entry(size)))
            );
            assert_eq!(contents(again.partial()), contents(tiles.partial()));
        }
        assert!(Tiles::resume(3, vec![vec![[0; 32]; 2]], Vec::new()).is_none());
    }
}
