//! AES keys: blocks as they are (ECB) or chained (CBC), without padding.

use aes::cipher::{
    BlockCipherDecrypt, BlockCipherEncrypt, BlockModeDecrypt as _, BlockModeEncrypt as _,
    BlockSizeUser, InnerIvInit as _, KeyInit, consts::U16,
};
use aes::{Aes128, Aes192, Aes256, Block};

use super::key::usable;
use crate::device::Device;
use crate::device::algorithm::Algorithm;
use crate::device::capability::{Authority, Capabilities};
use crate::device::content::Content;
use crate::device::error::ErrorCode;
use crate::device::frame::Fields;
use crate::device::object::ObjectType;

const BLOCK_LENGTH: usize = 16;

/// What is to be done with the blocks.
#[derive(Clone, Copy)]
pub(crate) enum Operation {
    EncryptEcb,
    DecryptEcb,
    EncryptCbc,
    DecryptCbc,
}

/// ENCRYPT and DECRYPT, ECB and CBC: for CBC the initialisation vector, then at least one block.
pub(crate) fn run(
    device: &Device,
    authority: &Authority,
    operation: Operation,
    mut fields: Fields<'_>,
) -> Result<Vec<u8>, ErrorCode> {
    let (needed, mode) = match operation {
        Operation::EncryptEcb => (Capabilities::ENCRYPT_ECB, Algorithm::AesEcb),
        Operation::DecryptEcb => (Capabilities::DECRYPT_ECB, Algorithm::AesEcb),
        Operation::EncryptCbc => (Capabilities::ENCRYPT_CBC, Algorithm::AesCbc),
        Operation::DecryptCbc => (Capabilities::DECRYPT_CBC, Algorithm::AesCbc),
    };
    let id = fields.u16()?;
    let object = usable(device, authority, ObjectType::SymmetricKey, id, needed)?;
    device.require(mode)?;
    let Content::Symmetric(key) = &object.content else {
        return Err(ErrorCode::InvalidData);
    };
    let vector = match mode {
        Algorithm::AesCbc => fields.array()?,
        _ => [0; BLOCK_LENGTH],
    };
    let (blocks, []) = fields.rest().as_chunks::<BLOCK_LENGTH>() else {
        return Err(ErrorCode::WrongLength);
    };
    if blocks.is_empty() {
        return Err(ErrorCode::WrongLength);
    }
    let blocks = blocks.iter().map(|block| (*block).into()).collect();
    match object.properties.algorithm {
        Algorithm::Aes128 => transform::<Aes128>(operation, key, vector, blocks),
        Algorithm::Aes192 => transform::<Aes192>(operation, key, vector, blocks),
        Algorithm::Aes256 => transform::<Aes256>(operation, key, vector, blocks),
        _ => Err(ErrorCode::InvalidData),
    }
}

fn transform<C>(
    operation: Operation,
    key: &[u8],
    vector: [u8; BLOCK_LENGTH],
    mut blocks: Vec<Block>,
) -> Result<Vec<u8>, ErrorCode>
where
    C: BlockCipherEncrypt + BlockCipherDecrypt + BlockSizeUser<BlockSize = U16> + KeyInit,
{
    let cipher = C::new_from_slice(key).map_err(|_| ErrorCode::CommandUnexecuted)?;
    match operation {
        Operation::EncryptEcb => cipher.encrypt_blocks(&mut blocks),
        Operation::DecryptEcb => cipher.decrypt_blocks(&mut blocks),
        Operation::EncryptCbc => {
            cbc::Encryptor::inner_iv_init(cipher, &vector.into()).encrypt_blocks(&mut blocks);
        }
        Operation::DecryptCbc => {
            cbc::Decryptor::inner_iv_init(cipher, &vector.into()).decrypt_blocks(&mut blocks);
        }
    }
    Ok(blocks.concat())
}
