//! What must be known of an ONNX file before the runtime opens it: which files it refers to, and whether its answers
//! depend on the batch.

use std::collections::BTreeSet;

use prost::Message;

// The few fields of onnx.proto3 through which a tensor can be reached; everything else is skipped while decoding.

#[derive(Clone, PartialEq, Message)]
struct Model {
    #[prost(message, optional, tag = "7")]
    graph: Option<Graph>,
    #[prost(message, repeated, tag = "20")]
    training: Vec<Training>,
    #[prost(message, repeated, tag = "25")]
    functions: Vec<Function>,
}

#[derive(Clone, PartialEq, Message)]
struct Training {
    #[prost(message, optional, tag = "1")]
    initialization: Option<Graph>,
    #[prost(message, optional, tag = "2")]
    algorithm: Option<Graph>,
}

#[derive(Clone, PartialEq, Message)]
struct Function {
    #[prost(message, repeated, tag = "7")]
    nodes: Vec<Node>,
    #[prost(message, repeated, tag = "11")]
    attributes: Vec<Attribute>,
}

#[derive(Clone, PartialEq, Message)]
struct Graph {
    #[prost(message, repeated, tag = "1")]
    nodes: Vec<Node>,
    #[prost(message, repeated, tag = "5")]
    initializers: Vec<Tensor>,
    #[prost(message, repeated, tag = "15")]
    sparse_initializers: Vec<SparseTensor>,
}

#[derive(Clone, PartialEq, Message)]
struct Node {
    #[prost(string, tag = "4")]
    operator: String,
    #[prost(message, repeated, tag = "5")]
    attributes: Vec<Attribute>,
}

#[derive(Clone, PartialEq, Message)]
struct Attribute {
    #[prost(message, optional, tag = "5")]
    tensor: Option<Tensor>,
    #[prost(message, optional, tag = "6")]
    graph: Option<Graph>,
    #[prost(message, repeated, tag = "10")]
    tensors: Vec<Tensor>,
    #[prost(message, repeated, tag = "11")]
    graphs: Vec<Graph>,
    #[prost(message, optional, tag = "22")]
    sparse_tensor: Option<SparseTensor>,
    #[prost(message, repeated, tag = "23")]
    sparse_tensors: Vec<SparseTensor>,
}

#[derive(Clone, PartialEq, Message)]
struct SparseTensor {
    #[prost(message, optional, tag = "1")]
    values: Option<Tensor>,
    #[prost(message, optional, tag = "2")]
    indices: Option<Tensor>,
}

#[derive(Clone, PartialEq, Message)]
struct Tensor {
    #[prost(message, repeated, tag = "13")]
    external: Vec<Pair>,
}

#[derive(Clone, PartialEq, Message)]
struct Pair {
    #[prost(string, tag = "1")]
    key: String,
    #[prost(string, tag = "2")]
    value: String,
}

/// What an ONNX file refers to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct References {
    /// Every external-data location, as written.
    pub locations: BTreeSet<String>,
    /// Whether an operator computes something over the whole batch, so that requests must not share a run.
    pub batch_dependent: bool,
}

/// Reads what the ONNX file in `bytes` refers to.
pub fn references(bytes: &[u8]) -> Result<References, prost::DecodeError> {
    let model = Model::decode(bytes)?;
    let mut found = References::default();
    let training = model.training.iter().flat_map(|part| part.initialization.iter().chain(&part.algorithm));
    model.graph.iter().chain(training).for_each(|graph| found.graph(graph));
    for function in &model.functions {
        function.nodes.iter().for_each(|node| found.node(node));
        function.attributes.iter().for_each(|attribute| found.attribute(attribute));
    }
    Ok(found)
}

impl References {
    fn graph(&mut self, graph: &Graph) {
        graph.nodes.iter().for_each(|node| self.node(node));
        graph.initializers.iter().for_each(|tensor| self.tensor(tensor));
        graph.sparse_initializers.iter().for_each(|tensor| self.sparse(tensor));
    }

    fn node(&mut self, node: &Node) {
        // dynamic quantisation takes its scale from all rows of the batch
        self.batch_dependent |= node.operator.starts_with("DynamicQuantize");
        node.attributes.iter().for_each(|attribute| self.attribute(attribute));
    }

    fn attribute(&mut self, attribute: &Attribute) {
        attribute.tensor.iter().chain(&attribute.tensors).for_each(|tensor| self.tensor(tensor));
        attribute.graph.iter().chain(&attribute.graphs).for_each(|graph| self.graph(graph));
        attribute.sparse_tensor.iter().chain(&attribute.sparse_tensors).for_each(|tensor| self.sparse(tensor));
    }

    fn sparse(&mut self, tensor: &SparseTensor) {
        tensor.values.iter().chain(&tensor.indices).for_each(|tensor| self.tensor(tensor));
    }

    fn tensor(&mut self, tensor: &Tensor) {
        let locations = tensor.external.iter().filter(|pair| pair.key == "location");
        self.locations.extend(locations.map(|pair| pair.value.clone()));
    }
}
