//! Opaque objects: data that the device keeps and does not understand.

use ::yubihsm::object::{Filter, Label, Type};
use ::yubihsm::{Capability, opaque};

use super::Session;
use crate::{DataObject, Error};

impl Session {
    pub(super) fn read_data(&self, label: &str) -> Result<Vec<DataObject>, Error> {
        let filters = [
            Filter::Type(Type::Opaque),
            Filter::Label(data_label(label)?),
        ];
        let found = self.client.list_objects(&filters);
        let found = found.map_err(|e| self.fault("list its data objects", &e))?;
        let objects = found.into_iter().map(|entry| {
            let content = self.client.get_opaque(entry.object_id);
            Ok(DataObject {
                number: entry.object_id,
                content: content.map_err(|e| self.fault("show a data object", &e))?,
            })
        });
        objects.collect()
    }

    pub(super) fn write_data(&self, label: &str, content: &[u8]) -> Result<(), Error> {
        let key = self.authentication_key;
        let own = self.client.get_object_info(key, Type::AuthenticationKey);
        let domains = own
            .map_err(|e| self.fault("describe its authentication key", &e))?
            .domains;
        let put = self.client.put_opaque(
            // The device chooses one.
            0,
            data_label(label)?,
            domains,
            Capability::empty(),
            opaque::Algorithm::Data,
            content,
        );
        put.map(drop)
            .map_err(|e| self.fault("keep a data object", &e))
    }
}

fn data_label(label: &str) -> Result<Label, Error> {
    Label::from_bytes(label.as_bytes()).map_err(|_| Error::Refused {
        operation: "keep data",
        cause: format!("label {label:?} is longer than 40 bytes"),
    })
}
