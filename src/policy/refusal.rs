//! Every reason to refuse, as a closed list: its label for metrics and audit, its MongoDB error code and the anchor
//! in `docs/errors.md` where the way out is told at length.

/// Why an operation is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    /// The command is not in the table, or cannot be used on a protected namespace.
    Command,
    /// An option of a known command is not supported on a protected namespace.
    Option,
    /// An operator that cannot work on ciphertext (range, regex, …) meets a protected field.
    Operator,
    /// Equality is asked of a field sealed with a random algorithm.
    RandomEquality,
    /// A path leads below a value that is sealed as a whole.
    BelowSealed,
    /// A value that contains protected fields is compared as a whole.
    WholeDocument,
    /// A value's BSON type is not the declared one and cannot be converted without loss.
    Type,
    /// A value that can never be sealed (undefined, minKey, maxKey, Timestamp(0,0)).
    Value,
    /// Sorting or index bounds on a protected field.
    Order,
    /// A non-simple collation together with a filter on a deterministic string.
    Collation,
    /// Code or text search that cannot be analysed (`$where`, `$function`, `$text`, `$jsonSchema`, …).
    Unanalysable,
    /// An aggregation stage that is not supported where protected fields are in play.
    Stage,
    /// An aggregation expression meets a protected field.
    Expression,
    /// What a path holds cannot be told any more at this point of the pipeline.
    UnknownShape,
    /// An update operator that cannot work on ciphertext.
    UpdateOperator,
    /// A pipeline update touches a protected field.
    PipelineUpdate,
    /// The client sent ciphertext itself.
    Injection,
    /// A key appears twice in one document, or reads like a protected path.
    AmbiguousKey,
    /// An index on a protected field that could not work.
    Index,
    /// The operation would need one key version, but a rotation or migration is under way.
    Rotation,
    /// The message is not what the protocol allows.
    Malformed,
    /// A legacy opcode or compressed message that could carry plaintext past the proxy.
    Protocol,
    /// An authentication mechanism that cannot pass a TLS-terminating proxy.
    Authentication,
    /// The result would not fit the server's limits.
    Size,
    /// A limit of the proxy is exhausted.
    Limit,
    /// The audit log cannot be written.
    Audit,
    /// A data key is missing or cannot be unwrapped.
    Key,
    /// A stored ciphertext does not authenticate.
    Tampered,
    /// The proof after rewriting failed: a bug of ours, caught before it could leak.
    Proof,
}

impl Reason {
    /// Every reason, for metrics and for the generated documentation.
    pub const ALL: &'static [Self] = &[
        Self::Command,
        Self::Option,
        Self::Operator,
        Self::RandomEquality,
        Self::BelowSealed,
        Self::WholeDocument,
        Self::Type,
        Self::Value,
        Self::Order,
        Self::Collation,
        Self::Unanalysable,
        Self::Stage,
        Self::Expression,
        Self::UnknownShape,
        Self::UpdateOperator,
        Self::PipelineUpdate,
        Self::Injection,
        Self::AmbiguousKey,
        Self::Index,
        Self::Rotation,
        Self::Malformed,
        Self::Protocol,
        Self::Authentication,
        Self::Size,
        Self::Limit,
        Self::Audit,
        Self::Key,
        Self::Tampered,
        Self::Proof,
    ];

    /// The label used by metrics, audit and documentation anchors.
    pub fn label(self) -> &'static str {
        match self {
            Self::Command => "command",
            Self::Option => "option",
            Self::Operator => "operator",
            Self::RandomEquality => "random-equality",
            Self::BelowSealed => "below-sealed",
            Self::WholeDocument => "whole-document",
            Self::Type => "type",
            Self::Value => "value",
            Self::Order => "order",
            Self::Collation => "collation",
            Self::Unanalysable => "unanalysable",
            Self::Stage => "stage",
            Self::Expression => "expression",
            Self::UnknownShape => "unknown-shape",
            Self::UpdateOperator => "update-operator",
            Self::PipelineUpdate => "pipeline-update",
            Self::Injection => "injection",
            Self::AmbiguousKey => "ambiguous-key",
            Self::Index => "index",
            Self::Rotation => "rotation",
            Self::Malformed => "malformed",
            Self::Protocol => "protocol",
            Self::Authentication => "authentication",
            Self::Size => "size",
            Self::Limit => "limit",
            Self::Audit => "audit",
            Self::Key => "key",
            Self::Tampered => "tampered",
            Self::Proof => "proof",
        }
    }

    /// MongoDB's error code and its name; none of them is retryable.
    pub fn code(self) -> (i32, &'static str) {
        match self {
            Self::Command | Self::Protocol => (115, "CommandNotSupported"),
            Self::Type | Self::Value | Self::Injection | Self::AmbiguousKey => {
                (121, "DocumentValidationFailure")
            }
            Self::Index => (67, "CannotCreateIndex"),
            Self::Malformed => (22, "InvalidBSON"),
            Self::Authentication => (18, "AuthenticationFailed"),
            Self::Size => (10334, "BSONObjectTooLarge"),
            Self::Limit | Self::Audit | Self::Key | Self::Tampered | Self::Proof => (96, "OperationFailed"),
            _ => (9, "FailedToParse"),
        }
    }
}

/// A deliberate no: what is refused, why, and what to do instead. Its text names fields and operators, never values.
#[derive(Debug)]
pub struct Refusal {
    /// The reason, for the code, the metric and the audit.
    pub reason: Reason,
    /// The whole message, without the `fieldveil: ` prefix.
    pub text: String,
    /// The protected field that it is about, for the audit.
    pub field: Option<std::sync::Arc<str>>,
    /// MongoDB's own error code where the server itself would have answered so (SEMANTICS B6); otherwise the reason's.
    pub code: Option<i32>,
}

impl Refusal {
    /// Builds a refusal; `text` must not hold a value from a document.
    pub fn new(reason: Reason, text: impl Into<String>) -> Self {
        Self {
            reason,
            text: text.into(),
            field: None,
            code: None,
        }
    }

    /// Says which protected field it is about.
    pub fn about(mut self, rule: &super::FieldRule) -> Self {
        self.field = Some(std::sync::Arc::clone(&rule.path));
        self
    }

    /// The server's own error code for this malformed request.
    pub fn with_code(mut self, code: i32) -> Self {
        self.code = Some(code);
        self
    }
}
