//! Every expression operator of MongoDB 6 to 8, and how protected operands fare in it: one closed table. Owns no
//! evaluation. Source: the server manual's list of aggregation operators; SEMANTICS B1.5.

/// How an operator is planned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Computes with its operands' values: each of them must be plain, and so is the result.
    Values,
    /// Takes no value from the document.
    Free,
    /// Runs code, or searches text of its own: never where protected fields are in play.
    Never,
    /// `$eq`, `$ne`.
    Equal,
    /// `$gt`, `$gte`, `$lt`, `$lte`, `$cmp`: only null can be compared with a sealed value.
    Order,
    /// `$in`.
    In,
    /// `$indexOfArray`.
    IndexOf,
    /// `$and`, `$or`, `$not`: only the truth of the operands counts.
    Logic,
    /// `$cond`.
    Cond,
    /// `$switch`.
    Switch,
    /// `$ifNull`.
    IfNull,
    /// `$let`.
    Let,
    /// `$literal`, `$const`.
    Literal,
    /// `$type`.
    Type,
    /// `$size`, `$isArray`: look at the array, not into it.
    Length,
    /// `$first`, `$last`, `$arrayElemAt`: one element of the first operand.
    Element,
    /// `$slice`, `$reverseArray`: the first operand again, with fewer or moved elements.
    Part,
    /// `$firstN`, `$lastN`: as [`Kind::Part`], with named arguments.
    PartN,
    /// `$filter`.
    Filter,
    /// `$map`.
    Map,
    /// `$reduce`.
    Reduce,
    /// `$sortArray`.
    SortArray,
    /// `$concatArrays`.
    Concat,
    /// `$setUnion`, `$setIntersection`, `$setDifference`: sets of values compared by equality.
    Sets,
    /// `$setEquals`, `$setIsSubset`: as [`Kind::Sets`], but the result is a boolean.
    SetTest,
    /// `$mergeObjects`.
    MergeObjects,
    /// `$objectToArray`.
    ObjectToArray,
    /// `$arrayToObject`.
    ArrayToObject,
    /// `$getField`.
    GetField,
    /// `$setField`.
    SetField,
    /// `$unsetField`.
    UnsetField,
    /// `$meta`.
    Meta,
}

/// The closed table, in alphabetical order.
pub const OPERATORS: &[(&str, Kind)] = &[
    ("$abs", Kind::Values),
    ("$accumulator", Kind::Never),
    ("$acos", Kind::Values),
    ("$acosh", Kind::Values),
    ("$add", Kind::Values),
    ("$allElementsTrue", Kind::Values),
    ("$and", Kind::Logic),
    ("$anyElementTrue", Kind::Values),
    ("$arrayElemAt", Kind::Element),
    ("$arrayToObject", Kind::ArrayToObject),
    ("$asin", Kind::Values),
    ("$asinh", Kind::Values),
    ("$atan", Kind::Values),
    ("$atan2", Kind::Values),
    ("$atanh", Kind::Values),
    ("$avg", Kind::Values),
    ("$binarySize", Kind::Values),
    ("$bitAnd", Kind::Values),
    ("$bitNot", Kind::Values),
    ("$bitOr", Kind::Values),
    ("$bitXor", Kind::Values),
    ("$bsonSize", Kind::Values),
    ("$ceil", Kind::Values),
    ("$cmp", Kind::Order),
    ("$concat", Kind::Values),
    ("$concatArrays", Kind::Concat),
    ("$cond", Kind::Cond),
    ("$const", Kind::Literal),
    ("$convert", Kind::Values),
    ("$cos", Kind::Values),
    ("$cosh", Kind::Values),
    ("$createObjectId", Kind::Free),
    ("$dateAdd", Kind::Values),
    ("$dateDiff", Kind::Values),
    ("$dateFromParts", Kind::Values),
    ("$dateFromString", Kind::Values),
    ("$dateSubtract", Kind::Values),
    ("$dateToParts", Kind::Values),
    ("$dateToString", Kind::Values),
    ("$dateTrunc", Kind::Values),
    ("$dayOfMonth", Kind::Values),
    ("$dayOfWeek", Kind::Values),
    ("$dayOfYear", Kind::Values),
    ("$degreesToRadians", Kind::Values),
    ("$divide", Kind::Values),
    ("$encStrContains", Kind::Never),
    ("$encStrEndsWith", Kind::Never),
    ("$encStrNormalizedEq", Kind::Never),
    ("$encStrStartsWith", Kind::Never),
    ("$eq", Kind::Equal),
    ("$exp", Kind::Values),
    ("$filter", Kind::Filter),
    ("$first", Kind::Element),
    ("$firstN", Kind::PartN),
    ("$floor", Kind::Values),
    ("$function", Kind::Never),
    ("$getField", Kind::GetField),
    ("$gt", Kind::Order),
    ("$gte", Kind::Order),
    ("$hash", Kind::Values),
    ("$hexHash", Kind::Values),
    ("$hour", Kind::Values),
    ("$ifNull", Kind::IfNull),
    ("$in", Kind::In),
    ("$indexOfArray", Kind::IndexOf),
    ("$indexOfBytes", Kind::Values),
    ("$indexOfCP", Kind::Values),
    ("$isArray", Kind::Length),
    ("$isNumber", Kind::Values),
    ("$isoDayOfWeek", Kind::Values),
    ("$isoWeek", Kind::Values),
    ("$isoWeekYear", Kind::Values),
    ("$last", Kind::Element),
    ("$lastN", Kind::PartN),
    ("$let", Kind::Let),
    ("$literal", Kind::Literal),
    ("$ln", Kind::Values),
    ("$log", Kind::Values),
    ("$log10", Kind::Values),
    ("$lt", Kind::Order),
    ("$lte", Kind::Order),
    ("$ltrim", Kind::Values),
    ("$map", Kind::Map),
    ("$max", Kind::Values),
    ("$maxN", Kind::Values),
    ("$median", Kind::Values),
    ("$mergeObjects", Kind::MergeObjects),
    ("$meta", Kind::Meta),
    ("$millisecond", Kind::Values),
    ("$min", Kind::Values),
    ("$minN", Kind::Values),
    ("$minute", Kind::Values),
    ("$mod", Kind::Values),
    ("$month", Kind::Values),
    ("$multiply", Kind::Values),
    ("$ne", Kind::Equal),
    ("$not", Kind::Logic),
    ("$objectToArray", Kind::ObjectToArray),
    ("$or", Kind::Logic),
    ("$percentile", Kind::Values),
    ("$pow", Kind::Values),
    ("$radiansToDegrees", Kind::Values),
    ("$rand", Kind::Free),
    ("$range", Kind::Values),
    ("$reduce", Kind::Reduce),
    ("$regexFind", Kind::Values),
    ("$regexFindAll", Kind::Values),
    ("$regexMatch", Kind::Values),
    ("$replaceAll", Kind::Values),
    ("$replaceOne", Kind::Values),
    ("$reverseArray", Kind::Part),
    ("$round", Kind::Values),
    ("$rtrim", Kind::Values),
    ("$second", Kind::Values),
    ("$setDifference", Kind::Sets),
    ("$setEquals", Kind::SetTest),
    ("$setField", Kind::SetField),
    ("$setIntersection", Kind::Sets),
    ("$setIsSubset", Kind::SetTest),
    ("$setUnion", Kind::Sets),
    ("$sigmoid", Kind::Values),
    ("$similarityCosine", Kind::Values),
    ("$similarityDotProduct", Kind::Values),
    ("$similarityEuclidean", Kind::Values),
    ("$sin", Kind::Values),
    ("$sinh", Kind::Values),
    ("$size", Kind::Length),
    ("$slice", Kind::Part),
    ("$sortArray", Kind::SortArray),
    ("$split", Kind::Values),
    ("$sqrt", Kind::Values),
    ("$stdDevPop", Kind::Values),
    ("$stdDevSamp", Kind::Values),
    ("$strLenBytes", Kind::Values),
    ("$strLenCP", Kind::Values),
    ("$strcasecmp", Kind::Values),
    ("$substr", Kind::Values),
    ("$substrBytes", Kind::Values),
    ("$substrCP", Kind::Values),
    ("$subtract", Kind::Values),
    ("$subtype", Kind::Values),
    ("$sum", Kind::Values),
    ("$switch", Kind::Switch),
    ("$tan", Kind::Values),
    ("$tanh", Kind::Values),
    ("$toArray", Kind::Values),
    ("$toBool", Kind::Values),
    ("$toDate", Kind::Values),
    ("$toDecimal", Kind::Values),
    ("$toDouble", Kind::Values),
    ("$toHashedIndexKey", Kind::Values),
    ("$toInt", Kind::Values),
    ("$toLong", Kind::Values),
    ("$toLower", Kind::Values),
    ("$toObject", Kind::Values),
    ("$toObjectId", Kind::Values),
    ("$toString", Kind::Values),
    ("$toUUID", Kind::Values),
    ("$toUpper", Kind::Values),
    ("$trim", Kind::Values),
    ("$trunc", Kind::Values),
    ("$tsIncrement", Kind::Values),
    ("$tsSecond", Kind::Values),
    ("$type", Kind::Type),
    ("$unsetField", Kind::UnsetField),
    ("$week", Kind::Values),
    ("$year", Kind::Values),
    ("$zip", Kind::Values),
];

/// The row of an operator; `None` where the table does not know it.
pub fn kind(name: &[u8]) -> Option<Kind> {
    OPERATORS
        .binary_search_by(|(known, _)| known.as_bytes().cmp(name))
        .ok()
        .and_then(|at| OPERATORS.get(at))
        .map(|(_, kind)| *kind)
}
