//! Writes a record that the client library has no words for, such as a header whose name is not UTF-8.

use std::io::{Read, Write};
use std::net::TcpStream;

use super::clock;
use super::extra::Extra;

/// Key and version of the API Produce, in its last version whose fields all have a fixed width.
const API: [i16; 2] = [0, 7];
const ACKNOWLEDGED_WITHIN_MS: i32 = 10_000;

/// Writes the record to this partition of a broker that leads it, and returns its offset.
pub(super) fn produce(broker: &str, topic: &str, partition: i32, extra: &Extra) -> Result<i64, String> {
    let batch = batch(extra);
    let mut request = Vec::new();
    API.iter().for_each(|number| request.extend(number.to_be_bytes()));
    request.extend(1_i32.to_be_bytes()); // the request's own correlation id
    string(&mut request, "checker-raw");
    request.extend((-1_i16).to_be_bytes()); // no transaction
    request.extend((-1_i16).to_be_bytes()); // acknowledged by all
    request.extend(ACKNOWLEDGED_WITHIN_MS.to_be_bytes());
    request.extend(1_i32.to_be_bytes());
    string(&mut request, topic);
    request.extend(1_i32.to_be_bytes());
    request.extend(partition.to_be_bytes());
    request.extend(length(&batch));
    request.extend(batch);

    let response = call(broker, &request).map_err(|error| error.to_string())?;
    // After its correlation id, the count of topics, the name, the count of partitions and the partition.
    let answer = response.get(4 + 4 + 2 + topic.len() + 4 + 4..).unwrap_or_default();
    match (answer.first_chunk::<2>(), answer.get(2..).and_then(<[u8]>::first_chunk::<8>)) {
        (Some([0, 0]), Some(offset)) => Ok(i64::from_be_bytes(*offset)),
        (error, _) => Err(format!("the broker answers with error {error:?}")),
    }
}

fn call(broker: &str, request: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(broker)?;
    stream.write_all(&length(request))?;
    stream.write_all(request)?;
    let mut length = [0; 4];
    stream.read_exact(&mut length)?;
    let mut response = vec![0; u32::from_be_bytes(length) as usize];
    stream.read_exact(&mut response)?;
    Ok(response)
}

/// Builds a batch of this one record.
fn batch(extra: &Extra) -> Vec<u8> {
    let now = i64::try_from(clock::micros() / 1_000).unwrap().to_be_bytes();
    let mut checked = Vec::new();
    checked.extend(0_i16.to_be_bytes()); // not compressed
    checked.extend(0_i32.to_be_bytes()); // the last one is the first one
    checked.extend(now);
    checked.extend(now);
    checked.extend((-1_i64).to_be_bytes()); // no producer id
    checked.extend((-1_i16).to_be_bytes());
    checked.extend((-1_i32).to_be_bytes());
    checked.extend(1_i32.to_be_bytes());
    let record = record(extra);
    varint(&mut checked, i64::try_from(record.len()).unwrap());
    checked.extend(record);

    let mut rest = Vec::from((-1_i32).to_be_bytes()); // no leader epoch
    rest.push(2); // the version of the format
    rest.extend(crc32c(&checked).to_be_bytes());
    rest.extend(checked);
    let mut batch = Vec::from(0_i64.to_be_bytes());
    batch.extend(length(&rest));
    batch.extend(rest);
    batch
}

fn record(extra: &Extra) -> Vec<u8> {
    let mut record = vec![0, 0, 0]; // no attributes, the batch's timestamp and offset
    bytes(&mut record, extra.key.as_deref());
    bytes(&mut record, extra.value.as_deref());
    varint(&mut record, i64::try_from(extra.headers.len()).unwrap());
    for (name, value) in &extra.headers {
        bytes(&mut record, Some(name));
        bytes(&mut record, value.as_deref());
    }
    record
}

fn string(out: &mut Vec<u8>, text: &str) {
    out.extend(i16::try_from(text.len()).unwrap().to_be_bytes());
    out.extend(text.as_bytes());
}

fn bytes(out: &mut Vec<u8>, bytes: Option<&[u8]>) {
    varint(out, bytes.map_or(-1, |bytes| i64::try_from(bytes.len()).unwrap()));
    out.extend(bytes.unwrap_or_default());
}

fn length(bytes: &[u8]) -> [u8; 4] {
    u32::try_from(bytes.len()).unwrap().to_be_bytes()
}

/// Writes a number as a zigzag varint, seven bits at a time.
fn varint(out: &mut Vec<u8>, number: i64) {
    let mut left = ((number << 1) ^ (number >> 63)).cast_unsigned();
    while left >= 0x80 {
        out.push((left & 0x7f) as u8 | 0x80);
        left >>= 7;
    }
    out.push(left as u8);
}

/// Computes CRC-32C, bit by bit.
fn crc32c(bytes: &[u8]) -> u32 {
    let step = |crc: u32, _| if crc & 1 == 1 { crc >> 1 ^ 0x82f6_3b78 } else { crc >> 1 };
    !bytes.iter().fold(u32::MAX, |crc, byte| (0..8).fold(crc ^ u32::from(*byte), step))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_checksums_are_what_kafka_reads() {
        let written = |number| {
            let mut out = Vec::new();
            varint(&mut out, number);
            out
        };
        assert_eq!([0, -1, 1, -64, 64].map(written), [vec![0], vec![1], vec![2], vec![0x7f], vec![0x80, 1]]);
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
    }
}
