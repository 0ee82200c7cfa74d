//! The parquet of a shard: one row group, one optional flat column per field, snappy.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use parquet::basic::{Compression, LogicalType, Repetition, Type as PhysicalType};
use parquet::data_type::{BoolType, ByteArray, ByteArrayType, DataType, DoubleType, Int64Type};
use parquet::errors::ParquetError;
use parquet::file::properties::WriterProperties;
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::file::writer::{SerializedColumnWriter, SerializedFileWriter};
use parquet::record::Field;
use parquet::schema::types::{Type, TypePtr};
use serde_json::{Map, Value};

use super::sample::{Column, ColumnKind};
use crate::{Error, Result};

/// The rows of the parquet at `path`. Columns of types that [`ColumnKind`] does not have are an error.
pub(super) fn decode_table(path: &Path) -> Result<Vec<Map<String, Value>>> {
    let file = File::open(path).map_err(Error::io("open", path))?;
    decode(file).map_err(|e| Error::format(path, "", format!("cannot be decoded: {e}")))
}

fn decode(file: File) -> std::result::Result<Vec<Map<String, Value>>, ParquetError> {
    let reader = SerializedFileReader::new(file)?;
    let mut rows = Vec::new();
    for row in reader.get_row_iter(None)? {
        let columns = row?.into_columns().into_iter().map(|(name, field)| match field {
            Field::Null => Ok((name, Value::Null)),
            Field::Str(text) => Ok((name, Value::from(text))),
            Field::Long(number) => Ok((name, Value::from(number))),
            Field::ULong(number) => Ok((name, Value::from(number))),
            Field::Double(number) => Ok((name, Value::from(number))),
            Field::Bool(flag) => Ok((name, Value::from(flag))),
            other => Err(ParquetError::General(format!("column {name} holds {other}, which no column of a shard does"))),
        });
        rows.push(columns.collect::<std::result::Result<_, _>>()?);
    }
    Ok(rows)
}

/// The parquet file of `rows`, each with a value for each of `columns`. Same rows, same bytes.
pub(super) fn encode_table(path: &Path, columns: &[Column], rows: &[Map<String, Value>]) -> Result<Vec<u8>> {
    encode(columns, rows).map_err(|e| Error::format(path, "", format!("cannot be encoded: {e}")))
}

fn encode(columns: &[Column], rows: &[Map<String, Value>]) -> std::result::Result<Vec<u8>, ParquetError> {
    let properties = WriterProperties::builder()
        .set_compression(Compression::SNAPPY)
        .set_created_by(format!("syntic {}", crate::VERSION))
        .build();
    let mut file = SerializedFileWriter::new(Vec::new(), schema(columns)?, Arc::new(properties))?;
    let mut group = file.next_row_group()?;
    for column in columns {
        let Some(mut writer) = group.next_column()? else {
            return Err(ParquetError::General(format!("no place for column {}", column.name)));
        };
        let values = || rows.iter().map(|row| row.get(&column.name).unwrap_or(&Value::Null));
        match column.kind {
            ColumnKind::Text => write::<ByteArrayType>(&mut writer, values().map(|v| v.as_str().map(ByteArray::from)))?,
            ColumnKind::Int => write::<Int64Type>(&mut writer, values().map(Value::as_i64))?,
            // Parquet keeps unsigned integers as the signed ones with the same bits.
            ColumnKind::UInt => write::<Int64Type>(&mut writer, values().map(|v| v.as_u64().map(|n| n as i64)))?,
            ColumnKind::Float => write::<DoubleType>(&mut writer, values().map(Value::as_f64))?,
            ColumnKind::Bool => write::<BoolType>(&mut writer, values().map(Value::as_bool))?,
        }
        writer.close()?;
    }
    group.close()?;
    file.into_inner()
}

/// Writes one optional column: the values that are there, and definition level 1 or 0 for present or null.
fn write<T: DataType>(
    writer: &mut SerializedColumnWriter,
    values: impl Iterator<Item = Option<T::T>>,
) -> std::result::Result<(), ParquetError> {
    let values: Vec<Option<T::T>> = values.collect();
    let levels: Vec<i16> = values.iter().map(|value| i16::from(value.is_some())).collect();
    let present: Vec<T::T> = values.into_iter().flatten().collect();
    writer.typed::<T>().write_batch(&present, Some(&levels), None).map(|_| ())
}

fn schema(columns: &[Column]) -> std::result::Result<TypePtr, ParquetError> {
    let field = |column: &Column| {
        let (physical, logical) = match column.kind {
            ColumnKind::Text => (PhysicalType::BYTE_ARRAY, Some(LogicalType::String)),
            ColumnKind::Int => (PhysicalType::INT64, None),
            ColumnKind::UInt => (PhysicalType::INT64, Some(LogicalType::integer(64, false))),
            ColumnKind::Float => (PhysicalType::DOUBLE, None),
            ColumnKind::Bool => (PhysicalType::BOOLEAN, None),
        };
        let builder = Type::primitive_type_builder(&column.name, physical).with_repetition(Repetition::OPTIONAL);
        builder.with_logical_type(logical).build().map(Arc::new)
    };
    let fields = columns.iter().map(field).collect::<std::result::Result<Vec<_>, _>>()?;
    Ok(Arc::new(Type::group_type_builder("schema").with_fields(fields).build()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn rows_come_back() {
        let columns = [
            Column::new("text", ColumnKind::Text),
            Column::new("int", ColumnKind::Int),
            Column::new("uint", ColumnKind::UInt),
            Column::new("float", ColumnKind::Float),
            Column::new("bool", ColumnKind::Bool),
        ];
        let rows: Vec<Map<String, Value>> = [
            json!({"text": "héllo, \"wörld\"\n", "int": i64::MIN, "uint": u64::MAX, "float": 0.1, "bool": true}),
            json!({"text": null, "int": null, "uint": null, "float": null, "bool": null}),
            json!({"text": "", "int": 0, "uint": 0, "float": -1e300, "bool": false}),
        ]
        .into_iter()
        .map(|row| row.as_object().unwrap().clone())
        .collect();
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("t.parquet");
        for rows in [&rows[..], &rows[1..2], &[]] {
            let bytes = encode_table(&path, &columns, rows).unwrap();
            assert_eq!(bytes, encode_table(&path, &columns, rows).unwrap(), "the same bytes each time");
            std::fs::write(&path, bytes).unwrap();
            assert_eq!(decode_table(&path).unwrap(), rows);
        }
        std::fs::write(&path, b"PAR1 this is no table").unwrap();
        assert!(decode_table(&path).unwrap_err().to_string().contains("t.parquet"));
    }
}
