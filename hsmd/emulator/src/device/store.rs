//! The object store: what is in it, what still fits, what was there before.

use std::collections::BTreeMap;

use super::capability::Domains;
use super::content::Content;
use super::error::ErrorCode;
use super::object::{Object, ObjectType, Origin, Properties};
use super::random;

/// Most objects that the device holds.
pub const OBJECT_LIMIT: usize = 256;
/// Pages of the store; with [`PAGE_LENGTH`] 126 KiB in all.
pub const PAGE_COUNT: usize = 1024;
/// Bytes in a page. An object takes whole pages.
pub const PAGE_LENGTH: usize = 126;

/// Identifier of objects that the factory put there; no command makes or deletes one.
pub(crate) const FACTORY_ID: u16 = 0x0000;
/// Reserved by the device.
const RESERVED_ID: u16 = 0xffff;

/// An object is named by type and identifier.
pub(crate) type Name = (ObjectType, u16);

/// All objects, and the last sequence number of every object that was deleted.
#[derive(Default)]
pub(crate) struct Store {
    objects: BTreeMap<Name, Object>,
    last_sequences: BTreeMap<Name, u8>,
    revision: u64,
}

impl Store {
    /// Puts a stored state back together; `None` if no sequence of commands could have led to it.
    pub(crate) fn restore(objects: Vec<Object>, last_sequences: Vec<(Name, u8)>) -> Option<Self> {
        let mut store = Self {
            last_sequences: last_sequences.into_iter().collect(),
            ..Self::default()
        };
        for object in objects {
            let name = (object.kind(), object.properties.id);
            let reserved = [FACTORY_ID, RESERVED_ID].contains(&name.1);
            if reserved || !store.fits(&object) || store.objects.insert(name, object).is_some() {
                return None;
            }
        }
        Some(store)
    }

    /// Adds an object and returns its identifier, which is chosen here if the properties say 0.
    pub(crate) fn insert(
        &mut self,
        mut properties: Properties,
        origin: Origin,
        content: Content,
    ) -> Result<u16, ErrorCode> {
        let mut object = Object {
            properties,
            origin,
            sequence: 0,
            content,
        };
        let kind = object.kind();
        if properties.id == RESERVED_ID {
            return Err(ErrorCode::InvalidId);
        }
        if self.objects.contains_key(&(kind, properties.id)) {
            return Err(ErrorCode::ObjectExists);
        }
        if !self.fits(&object) {
            return Err(ErrorCode::StorageFailed);
        }
        if properties.id == FACTORY_ID {
            properties.id = self.free_id(kind)?;
        }
        let name = (kind, properties.id);
        object.properties = properties;
        object.sequence = self
            .last_sequences
            .get(&name)
            .map_or(0, |last| last.wrapping_add(1));
        self.objects.insert(name, object);
        self.revision += 1;
        Ok(properties.id)
    }

    /// The object, provided that it shares a domain with `domains`.
    pub(crate) fn get(&self, name: Name, domains: Domains) -> Result<&Object, ErrorCode> {
        let object = self.objects.get(&name).ok_or(ErrorCode::ObjectNotFound)?;
        if object.properties.domains.intersects(domains) {
            Ok(object)
        } else {
            Err(ErrorCode::ObjectNotFound)
        }
    }

    /// Removes the object, provided that it shares a domain with `domains`.
    pub(crate) fn delete(&mut self, name: Name, domains: Domains) -> Result<(), ErrorCode> {
        let sequence = self.get(name, domains)?.sequence;
        self.objects.remove(&name);
        self.last_sequences.insert(name, sequence);
        self.revision += 1;
        Ok(())
    }

    /// Replaces the content of an object of the same type.
    pub(crate) fn replace(&mut self, name: Name, content: Content) -> Result<(), ErrorCode> {
        let object = self
            .objects
            .get_mut(&name)
            .ok_or(ErrorCode::ObjectNotFound)?;
        object.content = content;
        self.revision += 1;
        Ok(())
    }

    /// Removes everything, also the memory of what was deleted.
    pub(crate) fn clear(&mut self) {
        self.objects.clear();
        self.last_sequences.clear();
        self.revision += 1;
    }

    /// Objects in the order of type and identifier.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Object> {
        self.objects.values()
    }

    /// The last sequence number of every object that was deleted.
    pub(crate) fn last_sequences(&self) -> impl Iterator<Item = (Name, u8)> {
        self.last_sequences
            .iter()
            .map(|(name, sequence)| (*name, *sequence))
    }

    /// Free records and free pages.
    pub(crate) fn free(&self) -> (usize, usize) {
        let used: usize = self.iter().map(pages).sum();
        (
            OBJECT_LIMIT.saturating_sub(self.objects.len()),
            PAGE_COUNT.saturating_sub(used),
        )
    }

    /// Rises with every change.
    pub(crate) fn revision(&self) -> u64 {
        self.revision
    }

    fn fits(&self, object: &Object) -> bool {
        let (records, free_pages) = self.free();
        records > 0 && pages(object) <= free_pages
    }

    /// A free identifier, at random like the device's own choice.
    fn free_id(&self, kind: ObjectType) -> Result<u16, ErrorCode> {
        // At most 256 of 65,534 identifiers are taken, so that this ends soon.
        loop {
            let id = u16::from_be_bytes(random()?);
            let reserved = [FACTORY_ID, RESERVED_ID].contains(&id);
            if !reserved && !self.objects.contains_key(&(kind, id)) {
                return Ok(id);
            }
        }
    }
}

fn pages(object: &Object) -> usize {
    object.length().div_ceil(PAGE_LENGTH)
}
