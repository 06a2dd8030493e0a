// SPDX-License-Identifier: LGPL-2.1-or-later
// A caller that has libjson-rpc-cpp, and a stub that its jsonrpcstub has made of the OpenRPC document. It does what the
// lines on its standard input say, and answers each with a line of JSON: the result, or the library's exception.
#include <cstdlib>
#include <functional>
#include <iostream>
#include <map>
#include <sstream>
#include <string>

#include <jsonrpccpp/client/connectors/unixdomainsocketclient.h>

#include "tests/clients/p2mguard-stub.h"

namespace
{

Json::Value quick_policy()
{
    Json::Value policy;

    policy["quiet_ms"] = 50;
    policy["settle_ms"] = 100;
    return policy;
}

Json::Value call_batch(P2mguardStub &stub, const std::string &session)
{
    jsonrpc::BatchCall batch;
    Json::Value params, answers(Json::arrayValue);

    params["session"] = session;
    const int show = batch.addCall("guard.show", params);
    const int list = batch.addCall("guard.list", Json::Value(Json::objectValue));
    params["session"] = "1-00000000";
    const int missing = batch.addCall("guard.show", params);
    jsonrpc::BatchResponse responses = stub.CallProcedures(batch);
    answers.append(responses.getResult(show));
    answers.append(responses.getResult(list));
    Json::Value id = missing;
    answers.append(responses.getErrorCode(id));
    return answers;
}

using Command = std::function<Json::Value(P2mguardStub &, const std::string &)>;

const std::map<std::string, Command> commands = {
    {"begin",
     [](P2mguardStub &stub, const std::string &domain) {
         return stub.guard_begin("jsonrpccpp", domain, "detached", quick_policy(), true);
     }},
    {"begin-connection",
     [](P2mguardStub &stub, const std::string &domain) {
         return stub.guard_begin("jsonrpccpp", domain, "connection", quick_policy(), true);
     }},
    {"verdict", [](P2mguardStub &stub, const std::string &session) { return stub.guard_verdict("final", session); }},
    {"end", [](P2mguardStub &stub, const std::string &session) { return stub.guard_end("completed", session); }},
    {"show", [](P2mguardStub &stub, const std::string &session) { return stub.guard_show(session); }},
    {"list", [](P2mguardStub &stub, const std::string &) { return stub.guard_list(); }},
    {"info", [](P2mguardStub &stub, const std::string &) { return stub.daemon_info(); }},
    {"discover", [](P2mguardStub &stub, const std::string &) { return stub.rpc_discover(); }},
    {"batch", call_batch},
};

Json::Value obey(P2mguardStub &stub, const std::string &line)
{
    std::istringstream words(line);
    std::string verb, argument;
    Json::Value answer;

    words >> verb >> argument;
    try {
        answer["result"] = commands.at(verb)(stub, argument);
    } catch (const jsonrpc::JsonRpcException &exception) {
        answer["error"]["code"] = exception.GetCode();
        answer["error"]["message"] = exception.GetMessage();
        answer["error"]["data"] = exception.GetData();
    }
    return answer;
}

} // namespace

int main(int argc, char **argv)
{
    if (argc != 2) {
        std::cerr << "usage: jsonrpccpp-client SOCKET\n";
        return EXIT_FAILURE;
    }
    jsonrpc::UnixDomainSocketClient connector(argv[1]);
    P2mguardStub stub(connector);
    Json::StreamWriterBuilder writer;

    writer["indentation"] = "";
    for (std::string line; std::getline(std::cin, line);)
        std::cout << Json::writeString(writer, obey(stub, line)) << std::endl;
    return EXIT_SUCCESS;
}
